"""What a user asks for of a model that is to be added or pulled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from craft_protos.reasons import invalid

from craftd.models import precision, prediction
from craftd.models.finding import Asked
from craftd.models.model import ModelSource
from craftd.workers.inspector import Identity


@dataclass(frozen=True)
class Wish:
    """`name`: empty for one made from the source. `plan_only`: only say what would be downloaded.

    `prediction`: what its user says that it predicts; empty: as the evidence says.
    `parts`: text encoders and a VAE in files of their own, by name or path.
    `precision`: what it is kept in while it is loaded.
    """

    name: str = ""
    plan_only: bool = False
    prediction: str = ""
    parts: Asked = field(default_factory=Asked)
    near: tuple[Identity, ...] = ()  # files that are known to be parts, wherever they lie
    precision: str = ""

    def said_of(self, place: ModelSource) -> ModelSource:
        """The model with what its user says of it. Raises INVALID_FIELD."""
        return replace(place, prediction=prediction.check(self.prediction), precision=precision.check(self.precision))

    def met_by(self, here: ModelSource) -> ModelSource:
        """A model that is there already. Raises INVALID_FIELD where it is told to be something else."""
        if self.parts:
            hint = f"give it other parts: craft models edit {here.name} --vae FILE"
            raise invalid("path", f"{here.name} is here already", hint)
        if self.precision and precision.check(self.precision) != here.precision:
            hint = f"craft models edit {here.name} --precision {self.precision}"
            raise invalid("precision", f"{here.name} is here already, kept in another", hint)
        if self.prediction and prediction.check(self.prediction) != here.prediction:
            hint = f"craft models edit {here.name} --prediction {self.prediction}"
            raise invalid("prediction", f"{here.name} is here already, with another", hint)
        return here
