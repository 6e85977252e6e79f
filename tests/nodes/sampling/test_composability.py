"""The MODEL and the GUIDER among ComfyUI's own nodes, in this process, with ComfyUI's real classes."""

import logging

import pytest
import savings
import torch
from small_model import FRAMES, LATENT, UNET, WIDTH, SmallModel

SAMPLERS = ("euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc")
NAMED_LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
PROCESSOR_LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out"
ADAPTER_LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_v_ip.1"


@pytest.fixture(scope="module")
def small(pack, comfy_nodes):
    return SmallModel(pack)


@pytest.fixture(scope="module")
def plain(small):
    """What the model gives without anything between it and the guider."""
    return small.sample()[0]


@pytest.fixture(scope="module")
def unet_file(small, tmp_path_factory):
    return small.save(tmp_path_factory.mktemp("unet") / "unet.pth")


def schedule(small, guider, name, steps):
    if name != "AlignYourSteps":
        return small.sigmas(guider, name, steps)
    from comfy_extras.nodes_align_your_steps import AlignYourStepsScheduler

    return AlignYourStepsScheduler.execute("SVD", steps, 1.0).result[0]


# Samplers and sigmas


@pytest.mark.parametrize("scheduler", ["karras", "exponential", "AlignYourSteps"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_gives_the_same_frames_twice_with_every_sampler_and_sigmas(small, sampler, scheduler):
    guider = small.guider()
    sigmas = schedule(small, guider, scheduler, 3)
    first, _ = small.sample(guider, sampler, sigmas, seed=5)
    again, _ = small.sample(guider, sampler, sigmas, seed=5)
    assert first.shape == (FRAMES, *LATENT) and first.isfinite().all()
    assert torch.equal(first, again)
    other, _ = small.sample(guider, sampler, sigmas, seed=6)
    assert not torch.allclose(first, other, atol=1e-2)


def test_every_sampler_of_comfyui_runs(small):
    import comfy.samplers

    for sampler in comfy.samplers.SAMPLER_NAMES:
        guider = small.guider(scales=(1.0, 2.0) if sampler == "euler_cfg_pp" else (3.0, 6.0))
        frames, denoised = small.sample(guider, sampler, steps=2)
        assert frames.shape == denoised.shape == (FRAMES, *LATENT), sampler
        assert frames.isfinite().all(), sampler


@pytest.mark.parametrize("scheduler", ["karras", "exponential", "AlignYourSteps"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_windows_move_with_the_step_that_an_evaluation_belongs_to(small, monkeypatch, sampler, scheduler):
    guider, steps = small.guider(conditions=small.conditions(30)), 25
    offsets = []

    def predict(model, conds, x, timestep, options):
        offsets.append(-guider._windows[0][0] % 55)
        return [x * 0]

    monkeypatch.setattr(guider, "_predict", predict)
    small.sample(guider, sampler, schedule(small, guider, scheduler, steps))
    of_steps = [7 * step % 25 for step in range(steps)]
    if sampler == "heun":  # the second evaluation of a step is at the next one's sigma
        of_steps = [each for each in of_steps for _ in range(2)][1:]
    assert offsets == of_steps


def test_an_evaluation_between_two_sigmas_keeps_the_windows_of_its_step(small, monkeypatch):
    guider = small.guider(conditions=small.conditions(30))
    offsets = []

    def predict(model, conds, x, timestep, options):
        offsets.append(-guider._windows[0][0] % 55)
        return [x * 0]

    monkeypatch.setattr(guider, "_predict", predict)
    small.sample(guider, "dpm_2", steps=4)
    assert offsets == [0, 0, 7, 7, 14, 14, 21]


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "ddpm", "lcm"])
def test_leaving_out_windows_that_no_kept_frame_meets_changes_nothing(small, monkeypatch, sampler):
    windows = small.module("dicetalk.sampling.windows").windows
    frames, steps = 11, 3
    guider = small.guider(conditions=small.conditions(frames))
    every_window = [windows(frames + 25, step) for step in range(steps)]
    kept, _ = small.sample(guider, sampler, steps=steps)
    assert sum(map(len, guider._plans[25])) < sum(map(len, every_window))
    monkeypatch.setattr(guider, "_window_plan", lambda *args: every_window)
    assert torch.equal(kept, small.sample(guider, sampler, steps=steps)[0])


@pytest.mark.parametrize("at_once", [1, 2])
def test_any_split_of_the_branches_gives_the_same_frames(small, plain, monkeypatch, at_once):
    batches = []
    model = small.patcher.model
    apply = model.apply_model

    def counted(x, *args, **kwargs):
        batches.append(len(x))
        return apply(x, *args, **kwargs)

    def memory_required(shape, cond_shapes={}):
        return 1e30 if shape[0] > 25 * at_once else 1.0

    monkeypatch.setattr(model, "apply_model", counted)
    monkeypatch.setattr(model, "memory_required", memory_required)
    split, _ = small.sample()
    assert set(batches) <= {25, 25 * at_once} and max(batches) == 25 * at_once
    assert (split - plain).abs().max() < 1e-3 * plain.abs().max()


# Where sampling starts


def test_denoise_below_one_keeps_more_of_the_video_it_starts_from(small):
    guider = small.guider()
    video = {"samples": small.start(guider)["samples"] + torch.linspace(-1, 1, FRAMES)[:, None, None, None]}
    strong, weak = (
        small.sample(guider, sigmas=small.sigmas(guider, steps=2, denoise=denoise), latent=video)[0]
        for denoise in (1.0, 0.1)
    )
    assert (weak - video["samples"]).abs().mean() < 0.2 * (strong - video["samples"]).abs().mean()
    another = {"samples": video["samples"].flip(0)}
    from_another, _ = small.sample(guider, sigmas=small.sigmas(guider, steps=2, denoise=0.1), latent=another)
    assert not torch.allclose(weak, from_another, atol=0.1)


@pytest.mark.parametrize("frames_of_mask", [1, FRAMES])
def test_noise_mask_leaves_what_it_covers(small, frames_of_mask):
    guider = small.guider()
    mask = torch.zeros(frames_of_mask, 1, *LATENT[1:])
    mask[..., 2:] = 1
    latent = small.start(guider) | {"noise_mask": mask}
    frames, _ = small.sample(guider, latent=latent)
    assert torch.allclose(frames[..., :2], latent["samples"][..., :2], atol=1e-4)
    assert not torch.allclose(frames[..., 2:], latent["samples"][..., 2:], atol=1e-1)


def test_steps_may_be_split_between_two_samplers(small, plain, monkeypatch):
    from comfy_extras.nodes_custom_sampler import DisableNoise, SamplerCustomAdvanced

    guider = small.guider()
    import comfy.samplers

    sigmas, euler = small.sigmas(guider), comfy.samplers.sampler_object("euler")
    first, _ = small.sample(guider, euler, sigmas[:2])
    seen, predict = [], guider.predict_noise
    monkeypatch.setattr(guider, "predict_noise", lambda x, *args, **more: seen.append(x) or predict(x, *args, **more))
    no_noise = DisableNoise.execute().result[0]
    with torch.inference_mode():
        second, _ = SamplerCustomAdvanced.execute(no_noise, guider, euler, sigmas[1:], {"samples": first}).result
    assert second["samples"].shape == plain.shape and second["samples"].isfinite().all()
    # The extra window is not in the LATENT: it begins with the noise of this step, as the clip's frames have it.
    clip, extra = seen[0][:FRAMES].std(), seen[0][FRAMES:].std()
    assert 0.7 < extra / clip < 1.4 and float(extra) == pytest.approx(float(sigmas[1]), rel=0.3)


@pytest.mark.parametrize("sampler", ["euler", "uni_pc"])
def test_the_sampler_node_has_the_sigmas_of_ksampler(small, sampler, monkeypatch):
    import comfy.samplers

    sampling, guider = small.module("nodes.sampling.sampler"), small.guider()
    used = []
    monkeypatch.setattr(guider, "sample", lambda noise, latent, sampler, sigmas, **_: used.append(sigmas) or latent)
    monkeypatch.setattr(sampling, "make_guider", lambda **_: (guider, small.start(guider)))
    sampling.sample(0, 9, sampler, "karras", model=small.patcher)
    wanted = comfy.samplers.KSampler(small.patcher, 9, torch.device("cpu"), sampler, "karras").sigmas
    assert len(wanted) == 10 and torch.equal(used[0].cpu(), wanted)


def test_no_sigmas_leave_the_latent(small):
    guider = small.guider()
    latent = small.start(guider)
    assert torch.equal(small.sample(guider, sigmas=torch.FloatTensor([]))[0], latent["samples"])


# The bare MODEL


def test_ksampler_refuses_the_bare_model_in_one_sentence(small, comfy_nodes):
    nothing = [[torch.zeros(1, 1, 8), {}]]
    latent = {"samples": torch.zeros(1, *LATENT)}
    with pytest.raises(ValueError, match="use the node DICE-Talk Sampler") as refused:
        comfy_nodes.KSampler().sample(small.patcher, 0, 2, 5.0, "euler", "karras", nothing, nothing, latent)
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize("node", ["BasicGuider", "CFGGuider", "DualCFGGuider"])
def test_other_guiders_refuse_the_model_in_one_sentence(small, node):
    import comfy_extras.nodes_custom_sampler as custom

    nothing = [[torch.zeros(1, 1, 8), {}]]
    arguments = {
        "BasicGuider": (nothing,),
        "CFGGuider": (nothing, nothing, 2.0),
        "DualCFGGuider": (nothing, nothing, nothing, 2.0, 2.0, "regular"),
    }[node]
    guider = getattr(custom, node).execute(small.patcher, *arguments).result[0]
    with pytest.raises(ValueError, match="use the node DICE-Talk Sampler"):
        small.sample(guider, sigmas=torch.tensor([1.0, 0.0]), latent={"samples": torch.zeros(1, *LATENT)})


def test_guider_refuses_another_kind_of_model(small):
    class Other:
        model = torch.nn.Linear(1, 1)

    with pytest.raises(ValueError, match="The MODEL is a Linear, not DICE-Talk's: connect"):
        small.guider(Other())


# What stands between MODEL and guider


def lora(down, up, alpha=None, layer=NAMED_LAYER, inputs=UNET["block_out_channels"][0]):
    random = torch.Generator().manual_seed(1)
    width = UNET["block_out_channels"][0]
    tensors = {
        layer + down: torch.randn(2, inputs, generator=random),
        layer + up: torch.randn(width, 2, generator=random),
    }
    return tensors | ({layer + alpha: torch.tensor(2.0)} if alpha else {})


@pytest.mark.parametrize(
    "tensors",
    [
        lora(".lora_down.weight", ".lora_up.weight", ".alpha", "lora_unet_" + NAMED_LAYER.replace(".", "_")),
        lora(".lora_A.weight", ".lora_B.weight", layer="diffusion_model." + NAMED_LAYER),
        lora(".lora.down.weight", ".lora.up.weight", layer="diffusion_model." + NAMED_LAYER),
        lora(".lora_A.weight", ".lora_B.weight", layer="unet." + NAMED_LAYER),
        lora(".lora_A.weight", ".lora_B.weight", layer=NAMED_LAYER),
        lora("_lora.down.weight", "_lora.up.weight", layer="unet." + PROCESSOR_LAYER),
        lora(".lora_A.weight", ".lora_B.weight", layer="unet." + ADAPTER_LAYER, inputs=WIDTH),
    ],
    ids=["kohya", "PEFT", "diffusers", "pipeline", "without prefix", "processor", "emotion adapter"],
)
def test_lora_changes_the_frames_and_strength_zero_does_not(
    small, plain, comfy_nodes, monkeypatch, tmp_path, tensors, caplog
):
    import folder_paths
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "some.safetensors")
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda kind, name: str(tmp_path / name))
    with caplog.at_level(logging.WARNING):
        patched, *_ = comfy_nodes.LoraLoaderModelOnly().load_lora_model_only(small.patcher, "some.safetensors", 1.0)
    assert "lora key not loaded" not in caplog.text
    assert not torch.allclose(small.sample(small.guider(patched))[0], plain, atol=1e-2)
    assert torch.equal(small.sample()[0], plain)
    unpatched, *_ = comfy_nodes.LoraLoaderModelOnly().load_lora_model_only(small.patcher, "some.safetensors", 0.0)
    assert torch.equal(small.sample(small.guider(unpatched))[0], plain)


def test_torch_compile_gives_the_same_frames_from_one_graph(small, plain, monkeypatch):
    """As TorchCompileModel compiles, with a quicker backend than it offers, and the attention that GPUs get."""
    from comfy.ldm.modules.attention import attention_pytorch
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    monkeypatch.setattr(small.module("nodes.sampling.model"), "optimized_attention", attention_pytorch)
    compiled = small.patcher.clone()
    set_torch_compile_wrapper(model=compiled, backend="aot_eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert torch.allclose(small.sample(small.guider(compiled))[0], plain, atol=1e-3)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    change = {f"diffusion_model.{NAMED_LAYER}.weight": ("diff", (torch.full((32, 32), 0.1),))}
    found = []
    for patcher in (small.patcher, compiled):
        patched = patcher.clone()
        assert patched.add_patches(change)
        found.append(small.sample(small.guider(patched))[0])
    assert torch.allclose(*found, atol=1e-3) and not torch.allclose(found[0], plain, atol=1e-2)
    assert counters["stats"]["unique_graphs"] <= 2, "a LoRA compiles again at most once"


def cached(small, name, threshold, start=0.0, end=1.0):
    import comfy_extras.nodes_easycache as nodes_easycache

    return getattr(nodes_easycache, f"{name}Node").execute(small.patcher, threshold, start, end, False).result[0]


@pytest.mark.parametrize("cache", ["EasyCache", "LazyCache"])
def test_a_cache_with_threshold_zero_gives_the_same_frames(small, cache):
    guider = small.guider(conditions=small.conditions(30))
    whole, _ = small.sample(guider)
    with_cache = small.guider(cached(small, cache, 0.0), guider.conditions)
    assert torch.equal(small.sample(with_cache)[0], whole)


@pytest.mark.parametrize("cache", ["EasyCache", "LazyCache"])
def test_a_cache_skips_whole_steps_and_stays_near(small, cache):
    conditions, steps = small.conditions(30), 15
    sigmas = small.sigmas(small.guider(), steps=steps)
    whole, _ = small.sample(small.guider(conditions=conditions), sigmas=sigmas)

    def windows_by_step(threshold):
        patcher = cached(small, cache, threshold, start=0.15)
        computed = _count_model_calls(patcher)
        frames, _ = small.sample(small.guider(patcher, conditions), sigmas=sigmas)
        assert frames.isfinite().all()
        return computed, (frames - whole).abs().mean() / whole.abs().mean()

    low, little = windows_by_step(0.05)
    high, much = windows_by_step(1.0)
    assert 0 < len(high) < len(low) < steps
    assert set(low.values()) == set(high.values()) == {3}
    assert little < 0.2 and little < much


def _count_model_calls(patcher):
    """{sigma: windows computed}, filled while sampling: what reaches the UNet behind all wrappers so far."""
    import comfy.patcher_extension

    computed = {}

    def count(executor, x, timesteps, *args, **kwargs):
        computed[float(timesteps[0])] = computed.get(float(timesteps[0]), 0) + 1
        return executor(x, timesteps, *args, **kwargs)

    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "count", count)
    return computed


def test_easycache_gives_each_frame_of_each_branch_what_it_remembers_of_it(small):
    import comfy.patcher_extension
    from comfy_extras.nodes_easycache import EasyCacheNode

    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    remembered, computed, reused = {}, [], []

    def check(executor, x, timesteps, context, control, options, **kwargs):
        before, calls = x[:, :4].clone(), len(computed)
        change = executor(x, timesteps, context, control, options, **kwargs) - before
        assert len(options["uuids"]) == len(x) == len(set(options["uuids"]))
        if len(computed) > calls:
            remembered.update(zip(options["uuids"], change))
        else:
            reused.append(1)
            for name, row in zip(options["uuids"], change):
                assert torch.allclose(row, remembered[name], atol=1e-4)
        return before + change

    def count(executor, *args, **kwargs):
        computed.append(1)
        return executor(*args, **kwargs)

    patcher = small.patcher.clone()
    patcher.add_wrapper_with_key(kind, "check", check)
    patcher = EasyCacheNode.execute(patcher, 1.0, 0.0, 1.0, False).result[0]
    patcher.add_wrapper_with_key(kind, "count", count)
    small.sample(small.guider(patcher, small.conditions(30)), steps=8)
    assert reused and len(remembered) == 3 * 55


def test_functions_after_guidance_get_the_whole_clip(small):
    seen = []

    def halve(args):
        seen.append(args)
        return args["denoised"] / 2

    patcher = small.patcher.clone()
    patcher.set_model_sampler_post_cfg_function(halve)
    frames, _ = small.sample(small.guider(patcher), steps=1)
    assert torch.allclose(frames, small.sample(steps=1)[0] / 2, atol=5e-3)
    for name in ("denoised", "cond_denoised", "uncond_denoised", "input"):
        assert seen[-1][name].shape == (FRAMES + 25, *LATENT)
    small.sample(small.guider(patcher, scales=(1.0, 1.0)), steps=1)
    assert torch.allclose(seen[-1]["denoised"], seen[-1]["cond_denoised"], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(seen[-1]["denoised"], seen[-1]["uncond_denoised"], atol=1e-2)


def test_guidance_that_calls_the_model_again_is_refused(small):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    patcher = PerturbedAttentionGuidance.execute(small.patcher, 3.0).result[0]
    with pytest.raises(ValueError, match="wants to call the model again"):
        small.sample(small.guider(patcher))


def test_replaced_attention_is_refused(small):
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    patcher = SelfAttentionGuidance.execute(small.patcher, 0.5, 2.0).result[0]
    conditions = small.conditions(latent=(4, 8, 8))  # that node does nothing where a side is 4
    with pytest.raises(ValueError, match="replaces attention inside the UNet"):
        small.sample(small.guider(patcher, conditions))


def test_patches_inside_the_unet_are_told_to_have_no_effect(small, plain, caplog):
    from comfy_extras.nodes_tomesd import TomePatchModel

    patcher = TomePatchModel.execute(small.patcher, 0.5).result[0]
    with caplog.at_level(logging.WARNING):
        assert torch.equal(small.sample(small.guider(patcher))[0], plain)
    assert "have no effect on DICE-Talk's: attn1_patch, attn1_output_patch" in caplog.text


def test_two_way_guidance_functions_are_told_to_have_no_effect(small, plain, caplog):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    patcher = RescaleCFG().patch(small.patcher, 0.7)[0]
    with caplog.at_level(logging.WARNING):
        assert torch.equal(small.sample(small.guider(patcher))[0], plain)
    assert "sampler_cfg_function on the MODEL has no effect" in caplog.text


def test_context_windows_are_told_to_have_no_effect(small, plain, caplog):
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    options = {"context_length": 4, "context_overlap": 1, "context_schedule": "standard_static", "context_stride": 1}
    patcher = ContextWindowsManualNode.execute(
        small.patcher, **options, closed_loop=False, fuse_method="pyramid", dim=0, freenoise=False
    ).result[0]
    with caplog.at_level(logging.WARNING):
        assert torch.equal(small.sample(small.guider(patcher))[0], plain)
    assert "Context windows on the MODEL have no effect" in caplog.text


def test_model_sampling_continuous_edm(small, plain):
    from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM

    node = ModelSamplingContinuousEDM()
    same = node.patch(small.patcher, "v_prediction", 700.0, 0.002)[0]
    assert torch.equal(small.sample(small.guider(same))[0], plain)
    lower = small.guider(node.patch(small.patcher, "v_prediction", 120.0, 0.002)[0])
    assert float(small.sigmas(lower)[0]) == pytest.approx(120)
    assert not torch.allclose(small.sample(lower)[0], plain, atol=1e-2)


def test_model_merged_with_itself_is_the_same(small, plain):
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    merged = ModelMergeSimple().merge(small.patcher, small.patcher.clone(), 0.5)[0]
    tolerance = 1e-3 if small.patcher.load_device.type == "cpu" else 1e-2  # a GPU merges in half precision
    assert (small.sample(small.guider(merged))[0] - plain).abs().max() < tolerance * plain.abs().max()


def test_saved_model_is_loaded_again_with_its_patches_and_sigmas(small, comfy_nodes, unet_file, tmp_path):
    from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM
    from comfy_extras.nodes_model_merging import ModelSave

    model = small.load(unet_file)
    weight = f"diffusion_model.{NAMED_LAYER}.weight"
    model = ModelSamplingContinuousEDM().patch(model, "v_prediction", 300.0, 0.01)[0]
    model.add_patches({weight: ("diff", (torch.full((32, 32), 0.05),))}, 1.0)
    node = ModelSave()
    node.output_dir = str(tmp_path)
    node.save(model, "talker")
    (saved,) = tmp_path.glob("talker*.safetensors")
    loaded = small.load(saved)
    assert float(small.sigmas(small.guider(loaded))[0]) == pytest.approx(300)
    assert torch.equal(small.sample(small.guider(loaded))[0], small.sample(small.guider(model))[0])


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("sigma_max", torch.ones(2), "edm_vpred.sigma_max that is not one positive number"),
        ("sigma_max", torch.tensor(float("nan")), "edm_vpred.sigma_max that is not one positive number"),
        ("sigma_min", torch.tensor(0.0), "edm_vpred.sigma_min that is not one positive number"),
        ("sigma_max", torch.tensor(1j), "edm_vpred.sigma_max that is not one positive number"),
        ("other", torch.tensor(3.0), "edm_vpred.other unexpected"),
    ],
)
def test_settings_that_save_model_does_not_write_are_refused(small, unet_file, tmp_path, name, value, words):
    tensors = torch.load(unet_file, weights_only=True)
    torch.save({**tensors, f"edm_vpred.{name}": value}, tmp_path / "unet.pth")
    with pytest.raises(small.module("dicetalk.errors").InputError, match=words):
        small.load(tmp_path / "unet.pth")


def with_clones(small, unet_file, devices):
    """A MODEL as MultiGPU's node makes it, whose devices are names of the one CPU; and name → its BaseModel."""
    model = small.load(unet_file).clone()
    clones = [model.deepclone_multigpu(new_load_device=torch.device("cpu", number)) for number in range(devices - 1)]
    for clone in clones:
        clone.is_multigpu_base_clone = True
    model.set_additional_models("multigpu", clones)
    return model, {"main": model.model} | {f"clone {number}": clone.model for number, clone in enumerate(clones)}


@pytest.mark.parametrize(
    "devices, frames, scales, rows",
    [
        (2, 35, (3.0, 6.0), [5, 4]),  # three windows, where ComfyUI's own split would be 6 : 3
        (3, 7, (3.0, 6.0), [2, 2, 2]),  # two windows
        (2, 7, (1.0, 6.0), [2, 2]),  # two windows of two branches
    ],
)
def test_multigpu_gets_all_windows_of_a_step_at_once(small, unet_file, devices, frames, scales, rows):
    """Counted: the branches of windows, by device."""
    conditions = small.conditions(frames)
    whole, _ = small.sample(small.guider(small.load(unet_file), conditions, scales), steps=1)
    model, parts = with_clones(small, unet_file, devices)
    given = [_rows_of(part) for part in parts.values()]
    split, _ = small.sample(small.guider(model, conditions, scales), steps=1)
    assert [sum(each) / 25 for each in given] == rows
    assert (split - whole).abs().max() < 1e-3 * whole.abs().max()


def test_easycache_with_multigpu_keeps_each_branch_on_its_device(small, unet_file):
    """ComfyUI's own split: what EasyCache keeps of a frame is on the device of its branch, at every step."""
    from comfy_extras.nodes_easycache import EasyCacheNode

    model, parts = with_clones(small, unet_file, 2)
    model = EasyCacheNode.execute(model, 0.0, 0.15, 0.95, False).result[0]
    given = [_rows_of(part) for part in parts.values()]
    small.sample(small.guider(model), steps=2)
    assert [sum(each) / 25 for each in given] == [8, 4]  # two windows a step


def test_an_error_on_one_device_ends_the_step_and_leaves_nothing_behind(small, unet_file):
    model, parts = with_clones(small, unet_file, 2)
    apply, calls = parts["clone 0"].apply_model, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError("not enough")
        return apply(*args, **kwargs)

    parts["clone 0"].apply_model = failing
    whole, _ = small.sample(small.guider(small.load(unet_file)), steps=1)
    split, _ = small.sample(small.guider(model), steps=1)  # again with the branches one by one
    assert len(calls) > 2 and (split - whole).abs().max() < 1e-3 * whole.abs().max()
    parts["clone 0"].apply_model = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        small.sample(small.guider(model), steps=1)


def _rows_of(model):
    """A list that gets the rows of each call of the model."""
    apply, rows = model.apply_model, []

    def counted(x, *args, **kwargs):
        rows.append(len(x))
        return apply(x, *args, **kwargs)

    model.apply_model = counted
    return rows


# What comes out


def test_the_latent_can_be_upscaled_saved_loaded_and_decoded(small, plain, comfy_nodes, tmp_path, monkeypatch):
    import comfy.sd
    import comfy.utils
    import comfy_files
    import folder_paths

    latent = {"samples": plain}
    (wider,) = comfy_nodes.LatentUpscale().upscale(latent, "nearest-exact", 64, 64, "disabled")
    assert wider["samples"].shape == (FRAMES, 4, 8, 8)

    node = comfy_nodes.SaveLatent()
    node.output_dir = str(tmp_path)
    monkeypatch.setattr(folder_paths, "get_annotated_filepath", lambda name: str(tmp_path / name))
    node.save(latent, "talk")
    (saved,) = tmp_path.glob("talk*.latent")
    assert torch.equal(comfy_nodes.LoadLatent().load(saved.name)[0]["samples"], plain)

    comfy_files.write_small_vae(tmp_path / "vae.safetensors")
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(tmp_path / "vae.safetensors")))
    (frames,) = comfy_nodes.VAEDecode().decode(vae, latent)
    (tiled,) = comfy_nodes.VAEDecodeTiled().decode(vae, latent, 64, 16)
    assert frames.shape == tiled.shape == (FRAMES, 32, 32, 3)
    assert frames.isfinite().all() and tiled.isfinite().all()


def test_the_table_of_savings_shows_what_each_leaves_out(small):
    table = savings.measure(small, steps=13, frames=7, thresholds=(0.05, 0.2))
    rows = {name: (pictures, distance) for name, pictures, distance in table}
    assert all(0 < pictures <= 1 for pictures, _ in rows.values())
    # Pictures with the inner levels of another step are counted whole.
    assert all((pictures == 1) == (distance == 0) for name, (pictures, distance) in rows.items() if "deep" not in name)
    assert all(rows[f"deep_cache {every}"][1] > 0 for every in (2, 3))
    assert rows["speed draft"][0] < rows["10 steps, align_your_steps, dpmpp_2m"][0] < rows["speed fast"][0]
    assert rows["guidance_from 100, guidance_to 0.5"][0] < rows["guidance_from 100, guidance_to 0"][0] < 1


def test_caches_are_measured_on_drawn_people(small, tiny_checkpoint, monkeypatch):
    """On three of the eight clips that the tool makes."""
    goals = small.module("dicetalk.measure.goals")
    clips = goals.plain_clips
    monkeypatch.setattr(goals, "plain_clips", lambda *given: clips(*given)[::3])
    rows = list(savings.of_checkpoint(small, tiny_checkpoint, frames=2, steps=3, thresholds=(0.0,)))
    assert [row[0] for row in rows] == ["none", "EasyCache, threshold 0", "LazyCache, threshold 0"]
    assert rows[0][1] == 1
    for _, pictures, emotion, mouth, identity in rows:
        assert 0 < pictures <= 1 and 0 <= emotion <= 1 and -1 <= mouth <= 1 and 0 <= identity <= 1
    assert rows[1][2:] == rows[0][2:]  # at 0, EasyCache skips nothing
