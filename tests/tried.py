"""Which of diffusers' text-to-image pipelines craft draws with: tiny random ones, each held to its own picture.

    python -m tests.tried [KIND]...

Prints a Markdown table. Each pipeline is written to a folder, loaded by a real worker process and
drawn once; the picture is compared with that of the pipeline itself for the same seed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from craftd.architectures import detect
from craftd.worker import torchvision
from craftd.worker.models import modular

from tests import tiny_flows, tiny_models, tiny_networks
from tests.tiny_networks import FEATURES
from tests.worker import client

STEPS, SIDE, SEED = 3, 64, 7


def main() -> int:
    torchvision.hide()  # as in the worker
    wanted = sys.argv[1:] or list(MAKERS)
    print("| Pipeline | As | Result |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        files = Path(place) / "files"
        files.mkdir()
        with client.worker(files) as worker:
            for kind in wanted:
                print(_row(kind, Path(place) / kind, files, worker), flush=True)
    return 0


def _row(kind: str, folder: Path, files: Path, worker: client.WorkerProcess) -> str:
    import torch

    torch.manual_seed(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = MAKERS[kind]()
        save(pipe, folder)
        name = type(pipe).__name__
        model = client.put_model(folder, files, kind)
        worker.send(client.submit(model, kind, sampler="", steps=STEPS, seed=SEED, width=SIDE, height=SIDE))
        frames = worker.until_ended(kind)
        last = frames[-1]
        if last.HasField("failed"):
            return f"| {name} | generic | refused: {last.failed.error.message} |"
        drawn = next(client.pixels(frame.image) for frame in frames if frame.HasField("image"))
        notice = "".join(frame.started.notice for frame in frames if frame.HasField("started"))
        tells = any(frame.HasField("step") for frame in frames)
        off = int(np.abs(drawn - truth(pipe)).max())
    how = notice or ("steps told" if tells else "no step told")
    return f"| {name} | generic | {'the same picture' if off <= 1 else f'{off}/255 off'}; {how} |"


def save(pipe: Any, folder: Path) -> None:
    """A modular one with an index that names another place for each part, as published ones do."""
    pipe.save_pretrained(str(folder), safe_serialization=True)
    if hasattr(pipe, "blocks"):
        index = folder / "modular_model_index.json"
        index.write_text(index.read_text().replace(json.dumps(str(folder)), '"someone/somewhere"'))


def truth(pipe: Any) -> np.ndarray:
    import inspect

    import torch

    if hasattr(pipe, "blocks"):
        return _modular_truth(pipe)
    pipe.set_progress_bar_config(disable=True)
    asked = {"width": SIDE, "height": SIDE, "num_inference_steps": STEPS, "guidance_scale": 5.0}
    takes = inspect.signature(pipe.__call__).parameters
    call: dict[str, Any] = {key: value for key, value in asked.items() if key in takes}
    call |= detect.of_pipeline(type(pipe).__name__, None).call
    if "intermediate_timesteps" in takes:  # which are of two steps
        call["intermediate_timesteps"] = None
    if "true_cfg_scale" in takes:
        call |= {"true_cfg_scale": 5.0, "negative_prompt": " "}
    made = pipe("a red cat", generator=torch.Generator("cpu").manual_seed(SEED), **call)
    image = (made.image if hasattr(made, "image") else made.images)[0]
    return np.asarray(image.convert("RGB")).astype(int)


def _modular_truth(pipe: Any) -> np.ndarray:
    import torch

    pipe.guider = pipe.guider.new(guidance_scale=5.0)
    generator = torch.Generator("cpu").manual_seed(SEED)
    asked = {"width": SIDE, "height": SIDE, "num_inference_steps": STEPS, "generator": generator}
    return np.asarray(pipe(prompt="a red cat", output="images", **asked)[0].convert("RGB")).astype(int)


def _t5(features: int = 32) -> dict[str, Any]:
    return {"tokenizer": tiny_networks.t5_tokenizer(), "text_encoder": tiny_networks.t5_encoder(features)}


def _vae(**more: Any) -> Any:
    return tiny_networks.autoencoder_kl(**more)


def _pixart_sigma() -> Any:
    from diffusers import DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=32,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(transformer=transformer.eval(), vae=_vae(), scheduler=DDIMScheduler(), **_t5())


def _auraflow() -> Any:
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pos_embed_max_size=256,
    )
    return AuraFlowPipeline(
        transformer=transformer.eval(), vae=_vae(), scheduler=FlowMatchEulerDiscreteScheduler(), **_t5()
    )


def _cogview3() -> Any:
    from diffusers import CogVideoXDDIMScheduler, CogView3PlusPipeline, CogView3PlusTransformer2DModel

    transformer = CogView3PlusTransformer2DModel(
        in_channels=4,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        out_channels=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=8,
        sample_size=8,
    )
    return CogView3PlusPipeline(transformer=transformer.eval(), vae=_vae(), scheduler=CogVideoXDDIMScheduler(), **_t5())


def _gemma(features: int) -> Any:
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=300,
        hidden_size=features,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=4,
    )
    return Gemma2Model(config).eval()


def _lumina2() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel

    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(300, 64, 64),
        cap_feat_dim=32,
    )
    return Lumina2Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(shift_factor=0.1),
        text_encoder=_gemma(32),
        tokenizer=tiny_networks.t5_tokenizer(),
    )


def _sana() -> Any:
    from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel

    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=32,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    return SanaPipeline(
        tokenizer=tiny_networks.t5_tokenizer(),
        text_encoder=_gemma(8),
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def _ending_tokenizer() -> Any:
    """Of an empty text there is a mark left."""
    from tokenizers.processors import TemplateProcessing

    made = tiny_networks.t5_tokenizer()
    made.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


def _cogview4() -> Any:
    from diffusers import CogView4Pipeline, CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler
    from transformers import GlmConfig, GlmModel

    transformer = CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=4,
    )
    text = GlmConfig(**tiny_flows.TEXT, num_hidden_layers=2, pad_token_id=0)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
    )
    return CogView4Pipeline(
        tokenizer=_ending_tokenizer(),
        text_encoder=GlmModel(text).eval(),
        vae=_vae(),
        transformer=transformer.eval(),
        scheduler=scheduler,
    )


def _ovis() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, OvisImagePipeline, OvisImageTransformer2DModel

    transformer = OvisImageTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    return OvisImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae(shift_factor=0.1),
        text_encoder=tiny_flows.qwen3(layers=2),
        tokenizer=tiny_flows.tokenizer(),
        transformer=transformer.eval(),
    )


def _ernie() -> Any:
    from diffusers import ErnieImagePipeline, ErnieImageTransformer2DModel, FlowMatchEulerDiscreteScheduler
    from torch import nn
    from transformers import Mistral3Config, Mistral3Model

    transformer = ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=48,
        in_channels=16,
        out_channels=16,
        text_in_dim=24,
        rope_axes_dim=(8, 4, 4),
    )
    for name, parameter in transformer.named_parameters():
        if "adaLN_modulation" in name or "final" in name:  # noughts when they are made
            nn.init.normal_(parameter, std=0.2)
    text = {**tiny_flows.TEXT, "hidden_size": 24, "num_hidden_layers": 2, "model_type": "mistral"}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"model_type": "pixtral", "head_dim": 8}
    return ErnieImagePipeline(
        transformer=transformer.eval(),
        vae=tiny_flows.autoencoder_in_patches(),
        text_encoder=Mistral3Model(Mistral3Config(text_config=text, vision_config=vision)).eval(),
        tokenizer=tiny_networks.t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=4.0),
    )


def _ideogram4() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, Ideogram4Pipeline, Ideogram4Transformer2DModel

    transformers = [
        Ideogram4Transformer2DModel(
            in_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            intermediate_size=48,
            adaln_dim=16,
            llm_features_dim=13 * 32,
            mrope_section=(4, 2, 2),
        ).eval()
        for _ in range(2)
    ]
    return Ideogram4Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=tiny_flows.autoencoder_in_patches(),
        text_encoder=tiny_flows.qwen3_vl(layers=36),
        tokenizer=tiny_flows.tokenizer(),
        transformer=transformers[0],
        unconditional_transformer=transformers[1],
    )


def _processor(kind: str) -> Any:
    """transformers' own, made without what wants torchvision; its folder has a tokenizer, as a published one's has."""
    import transformers

    tokenizer = tiny_flows.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tiny_flows._MARKS)})
    made: Any = object.__new__(getattr(transformers, kind))
    made.tokenizer, made.chat_template, made.save_pretrained = tokenizer, tokenizer.chat_template, _saving(tokenizer)
    made.image_processor = made.video_processor = None
    made.image_token, made.video_token, made.image_token_id, made.video_token_id = (
        "<|image_pad|>",
        "<|video_pad|>",
        -1,
        -1,
    )
    return made


def _saving(tokenizer: Any) -> Callable[..., None]:
    return lambda folder, **_: tokenizer.save_pretrained(folder)


def _kandinsky5() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, Kandinsky5T2IPipeline, Kandinsky5Transformer3DModel

    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=FEATURES,
        in_text_dim2=FEATURES,
        time_dim=16,
        out_visual_dim=4,
        model_dim=32,
        ff_dim=48,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(8, 4, 4),
    )
    made = Kandinsky5T2IPipeline(
        transformer=transformer.eval(),
        vae=_vae(),
        text_encoder=tiny_flows.qwen25_vl(),
        tokenizer=_processor("Qwen2VLProcessor"),
        text_encoder_2=tiny_networks.text_encoder(),
        tokenizer_2=tiny_networks.tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    made.resolutions = [(SIDE, SIDE)]
    return made


def _longcat() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, LongCatImagePipeline, LongCatImageTransformer2DModel

    transformer = LongCatImageTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=FEATURES,
        pooled_projection_dim=FEATURES,
        axes_dims_rope=[4, 4, 8],
    )
    return LongCatImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae(latent_channels=16, shift_factor=0.1),
        text_encoder=tiny_flows.qwen25_vl(),
        tokenizer=tiny_flows.tokenizer(),
        text_processor=_processor("Qwen2VLProcessor"),
        transformer=transformer.eval(),
    )


def _qwen_image_21() -> Any:
    from diffusers import (
        AutoencoderKLQwenImage21,
        FlowMatchEulerDiscreteScheduler,
        QwenImage21Pipeline,
        QwenImage21Transformer2DModel,
    )

    transformer = QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=FEATURES,
        axes_dims_rope=(4, 4, 8),
    )
    vae = AutoencoderKLQwenImage21(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2, 2, 2],
        num_res_blocks=1,
        latents_mean=[-0.8, 0.1, 0.4, -0.3],
        latents_std=[2.8, 1.4, 2.3, 1.1],
    )
    return QwenImage21Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=tiny_flows.qwen3_vl(is_causal_lm=True),
        processor=_processor("Qwen3VLProcessor"),
        transformer=transformer.eval(),
    )


def _sana_sprint() -> Any:
    from diffusers import SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler

    parts = _sana().components
    config = {key: value for key, value in parts["transformer"].config.items() if not key.startswith("_")}
    config |= {"guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}
    parts["transformer"] = SanaTransformer2DModel(**config).eval()
    return SanaSprintPipeline(**parts | {"scheduler": SCMScheduler()})


def _long_clip() -> Any:
    """Of more tokens than CLIP's usual."""
    from transformers import CLIPTextModelWithProjection

    config = tiny_networks.clip_config(projection_dim=FEATURES)
    config.max_position_embeddings = 248
    return CLIPTextModelWithProjection(config).eval()


def _hidream() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, HiDreamImagePipeline, HiDreamImageTransformer2DModel
    from transformers import LlamaConfig, LlamaForCausalLM

    transformer = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_channels=[FEATURES, FEATURES],
        text_emb_dim=2 * FEATURES,
        num_routed_experts=2,
        axes_dims_rope=(8, 4, 4),
        max_resolution=(64, 64),
        llama_layers=[0, 1],
        force_inference_output=True,
    )
    llama = LlamaConfig(**tiny_flows.TEXT, num_hidden_layers=2)
    tokenizer = tiny_networks.t5_tokenizer()
    tokenizer.eos_token = tokenizer.pad_token
    made = HiDreamImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(shift_factor=0.1),
        text_encoder=_long_clip(),
        tokenizer=tiny_networks.tokenizer(),
        text_encoder_2=_long_clip(),
        tokenizer_2=tiny_networks.tokenizer(),
        text_encoder_3=tiny_networks.t5_encoder(FEATURES),
        tokenizer_3=tiny_networks.t5_tokenizer(),
        text_encoder_4=LlamaForCausalLM(llama).eval(),
        tokenizer_4=tokenizer,
        transformer=transformer.eval(),
    )
    made.default_sample_size = SIDE // made.vae_scale_factor
    return made


def _glm_image() -> Any:
    """Whose language model writes what each square of 32 pixels shows, with torch's global random numbers."""
    from diffusers import FlowMatchEulerDiscreteScheduler, GlmImagePipeline, GlmImageTransformer2DModel
    from transformers import ByT5Tokenizer, GlmImageConfig, GlmImageForConditionalGeneration, GlmImageProcessor
    from transformers.models.glm_image.image_processing_pil_glm_image import GlmImageImageProcessorPil

    transformer = GlmImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=FEATURES,
        time_embed_dim=16,
        condition_dim=8,
        prior_vq_quantizer_codebook_size=66,
    )
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
    text = {key: value for key, value in tiny_flows.TEXT.items() if key != "head_dim"}
    text |= {"num_hidden_layers": 2, "vision_vocab_size": 66, "rope_parameters": rope}
    text |= {"eos_token_id": 299, "pad_token_id": 0}  # an end that it cannot write: what it writes has a length
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "image_size": 64}
    config = GlmImageConfig(
        text_config=text,
        vision_config=vision,
        vq_config={"embed_dim": 8, "num_embeddings": 64, "latent_channels": 16},
        image_token_id=290,
        image_start_token_id=64,
        image_end_token_id=65,
    )
    words = tiny_flows.tokenizer()
    marks = {"image_token": "<|image|>", "grid_bos_token": "<sop>", "grid_eos_token": "<eop>"}
    words.add_special_tokens({"bos_token": "<|begin_of_image|>", "extra_special_tokens": list(marks.values())})
    for name, mark in marks.items():
        setattr(words, name, mark)
    words.init_kwargs |= marks
    made = GlmImagePipeline(
        tokenizer=ByT5Tokenizer(),
        processor=GlmImageProcessor(GlmImageImageProcessorPil(), words, chat_template=words.chat_template),
        text_encoder=tiny_networks.t5_encoder(FEATURES, vocab_size=400),
        vision_language_encoder=GlmImageForConditionalGeneration(config).eval(),
        vae=_vae(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.0, 1.2, 0.9, 1.1]),
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
        ),
    )
    for name in ("processor", "vision_language_encoder"):  # as the published index has them
        made.register_to_config(**{name: ("transformers", made.config[name][1])})
    return made


def _anima() -> Any:
    from diffusers import (
        AnimaModularPipeline,
        AnimaTextConditioner,
        CosmosTransformer3DModel,
        FlowMatchEulerDiscreteScheduler,
    )

    modular.lend_resizing()
    transformer = CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        mlp_ratio=2.0,
        text_embed_dim=FEATURES,
        adaln_lora_dim=8,
        max_size=(4, 64, 64),
        extra_pos_embed_type=None,
    )
    sides = dict.fromkeys(("source_dim", "target_dim", "model_dim"), FEATURES)
    conditioner = AnimaTextConditioner(
        **sides, num_layers=1, num_attention_heads=2, target_vocab_size=300, min_sequence_length=16
    )
    made = AnimaModularPipeline()
    made.update_components(
        text_encoder=tiny_flows.qwen3(layers=2),
        tokenizer=tiny_flows.tokenizer(),
        t5_tokenizer=tiny_networks.t5_tokenizer(),
        text_conditioner=conditioner.eval(),
        transformer=transformer.eval(),
        vae=tiny_flows.autoencoder_of_videos(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    return made


def _flux3() -> Any:
    """Drawn by the prompt as it is: what would write another stands in its index, elsewhere."""
    from diffusers import Flux3AutoBlocks, Flux3ModularPipeline, Flux3Transformer2DModel

    transformer = Flux3Transformer2DModel(
        in_channels=16,
        cond_in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8 * FEATURES,
        timestep_channels=16,
        mlp_ratio=2.0,
        axes_dims_rope=(4, 4, 4, 4),
    )
    blocks = Flux3AutoBlocks()
    del blocks.sub_blocks["prompt_upsampler"]
    made = Flux3ModularPipeline(blocks=blocks)
    made.update_components(
        text_encoder=tiny_flows.qwen3_vl(layers=36),
        tokenizer=_processor("Qwen3VLProcessor"),
        transformer=transformer.eval(),
        vae=tiny_flows.autoencoder_in_patches(),
    )
    return made


def _hunyuan() -> Any:
    from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
    from transformers import BertConfig, BertModel

    transformer = HunyuanDiT2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=4,
        cross_attention_dim=32,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
        hidden_size=24,
        activation_fn="gelu-approximate",
    )
    bert = BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37)
    return HunyuanDiTPipeline(
        vae=_vae(),
        text_encoder=BertModel(bert).eval(),
        tokenizer=tiny_networks.t5_tokenizer(),
        transformer=transformer.eval(),
        scheduler=DDPMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=tiny_networks.t5_encoder(32),
        tokenizer_2=tiny_networks.t5_tokenizer(),
    )


def _deepfloyd() -> Any:
    from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=32,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        in_channels=3,
        out_channels=6,
        cross_attention_dim=32,
        encoder_hid_dim=32,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )
    return IFPipeline(
        unet=unet.eval(),
        scheduler=DDPMScheduler(variance_type="learned_range", thresholding=True, beta_schedule="squaredcos_cap_v2"),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
        **_t5(),
    )


def _sd_pag() -> Any:
    from diffusers import StableDiffusionPAGPipeline

    plain = tiny_models._sd()
    return StableDiffusionPAGPipeline(**{**plain.components, "requires_safety_checker": False})


MAKERS: dict[str, Callable[[], Any]] = {
    "lcm": tiny_models._lcm,
    "pixart": tiny_models._pixart,
    "pixart-sigma": _pixart_sigma,
    "auraflow": _auraflow,
    "cogview3": _cogview3,
    "lumina2": _lumina2,
    "sana": _sana,
    "z-image": tiny_flows.z_image,
    "hunyuan-dit": _hunyuan,
    "cogview4": _cogview4,
    "ovis-image": _ovis,
    "ernie-image": _ernie,
    "ideogram4": _ideogram4,
    "kandinsky5": _kandinsky5,
    "longcat-image": _longcat,
    "qwen-image-2.1": _qwen_image_21,
    "sana-sprint": _sana_sprint,
    "hidream": _hidream,
    "glm-image": _glm_image,
    "anima": _anima,
    "flux3": _flux3,
    "deepfloyd-if": _deepfloyd,
    "sd-pag": _sd_pag,
}


if __name__ == "__main__":
    sys.exit(main())
