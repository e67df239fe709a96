"""What a picture was made from, in the one text that AUTOMATIC1111 and its relatives read."""

from __future__ import annotations

import json

from craft_protos.infotexts import written

from craftd.http.uploads import Notes


def of_notes(notes: Notes) -> str:
    """As it stands in the file, or from craft's own JSON; "" where there is neither."""
    own = notes.texts.get("parameters", "")
    return own or of_provenance(notes.texts.get("craft", "") or notes.comment) or notes.comment


def of_provenance(provenance: str) -> str:
    """ "" where it is none of craft's."""
    try:
        text = written(json.loads(provenance))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):  # the file may be anybody's
        return ""
    return text.encode("utf-8", "replace").decode()
