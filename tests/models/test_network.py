"""From settings to networks: every decoder, a sample of encoders, and what is refused before anything starts."""

import copy
import re
from typing import Any

import pytest
import torch

from greenseg.errors import UserError
from greenseg.losses import LOSSES
from greenseg.model_names import DECODERS, NETWORKS, incompatible, timm_names
from greenseg.models import network
from greenseg.models.memory_format import channels_last
from greenseg.settings import Settings, problems_of


def build(**values: Any) -> torch.nn.Module:
    return network.build(Settings.of(values))


def smallest(model: str) -> int:
    """The smallest image size that the settings accept for a network."""
    return next(size for size in range(32, 513, 32) if not problems_of({"model": model, "image_size": size}))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "model",
    [
        *NETWORKS,
        *(f"mobilenetv3-tiny-{decoder}" for decoder in DECODERS),
        *(f"mit-{decoder}" for decoder in DECODERS if not incompatible("mit_b0", decoder)),
        "tu-vit_tiny_patch16_224-dpt", "tu-swin_tiny_patch4_window7_224-unet",
        "tu-convnext_atto-unetplusplus", "efficientnet-lite-linknet", "densenet121-manet", "dpn68-upernet",
    ],
)  # fmt: skip
def test_a_network_trains_on_the_smallest_images_and_batches_that_are_accepted(model: str, batch: int) -> None:
    torch.manual_seed(0)
    size = smallest(model)
    if problems_of({"model": model, "image_size": size, "batch_size": batch}):
        size = size if size > 32 else 64
        if problems_of({"model": model, "image_size": size, "batch_size": batch}):
            assert batch == 1
            return
    net = build(model=model, image_size=size)
    logits = net(torch.randn(batch, 1, size, size))
    assert logits.shape == (batch, 1, size, size)
    logits.mean().backward()


@pytest.mark.parametrize(
    "model",
    [
        *NETWORKS, *(f"mobilenetv3-tiny-{decoder}" for decoder in DECODERS if decoder != "dpt"),
        "tu-vit_tiny_patch16_224-dpt",
    ],
)  # fmt: skip
def test_a_network_learns_from_several_channels_to_tell_several_classes(model: str) -> None:
    torch.manual_seed(0)
    size = max(smallest(model), 64)
    settings = Settings.of({"model": model, "image_size": size})
    net = network.build(settings, channels=4, outputs=6)
    optimizer, images = torch.optim.SGD(net.parameters(), 0.1), torch.randn(2, 4, size, size)
    logits = net(channels_last(images))
    assert logits.shape == (2, 6, size, size)
    LOSSES["dice_ce"](5)(logits, torch.randint(0, 6, (2, 1, size, size)).float()).backward()  # type: ignore[no-untyped-call]
    first = next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.in_channels == 4)
    before = first.weight.detach().clone()
    optimizer.step()
    assert (first.weight != before).flatten(2).any(2).all(0).all(), "it learns from each channel"

    parameters, macs = network.size(settings, 4, 6)
    assert parameters == network.parameters(net)
    assert macs > network.size(settings)[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "mobilenet-pan", "image_size": 96}, "mobilenet_v2-pan: pan needs image_size 128 or more, not 96"),
        (
            {"model": "tu-vit_small_patch14_dinov2-dpt"},
            "dpt needs patches of 8, 16 or 32 pixels, but tu-vit_small_patch14_dinov2 has 14",
        ),
        ({"model": "tu-vit_tiny_patch16_224-unet"}, "unet needs features of several sizes"),
        ({"model": "tu-repvit_m0_9-deeplabv3"}, "tu-repvit_m0_9 cannot be dilated"),
        (
            {"model": "mobilenet-deeplabv3plus", "batch_size": 1},
            "batch normalisation cannot learn from a batch_size of 1",
        ),
        ({"model": "mobilenet-unet", "batch_size": 1, "image_size": 32}, "batch normalisation cannot learn"),
        ({"model": "enet", "encoder": "resnet18"}, "resnet18-enet: enet is a whole network"),
        ({"model": "enet", "decoder": "unet"}, "unet needs an encoder, such as mobilenet-unet"),
        ({"model": "enet", "encoder_weights": "imagenet"}, "enet: a whole network has no pretrained encoder"),
        ({"model": "enet", "decoder_width": 32}, "a whole network has no decoder_width"),
        ({"model": "mobilenet-fpn", "decoder_width": 48}, "a multiple of 32, not 48"),
        ({"model": "mobilenet-unet", "decoder_width": 3}, "use 4 or more"),
        ({"model": "mobilenet-unet", "width": 0.5}, "only whole networks have a width (attention-squeeze-unet, "),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_starts(values: dict[str, Any], message: str) -> None:
    (problem,) = problems_of(values)
    assert problem.key is None
    assert message in str(problem)


def test_what_is_known_only_while_it_is_built_names_the_network() -> None:
    with pytest.raises(UserError, match=re.escape("tu-shvit_s1-dpt: segmentation-models-pytorch cannot make it: ")):
        build(model="tu-shvit_s1-dpt")


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_lean_decoder_has_as_many_channels_in_every_stage(decoder: str) -> None:
    torch.manual_seed(0)
    encoder = "tu-vit_tiny_patch16_224" if decoder == "dpt" else "mobilenetv3-tiny"
    width = 32 if decoder == "fpn" else 8
    values: dict[str, Any] = {"model": f"{encoder}-{decoder}", "image_size": 128}
    lean = build(**values, decoder_width=width)
    assert lean(torch.randn(2, 1, 128, 128)).shape == (2, 1, 128, 128)
    sizes = [network.size(Settings.of({**values, "decoder_width": each})) for each in (width, 4 * width)]
    assert network.parameters(lean) == sizes[0][0]
    assert sizes[0] < sizes[1]
    last = [module for module in lean.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    assert last.in_channels in (width, width // 2), "dpt halves them in its head"


def test_width_reaches_the_network() -> None:
    assert network.parameters(build(model="enet", width=0.5)) < network.parameters(build(model="enet"))


FAMILIES = {  # a model of timm for each: whether unet takes it, whether it can be dilated
    "convnext_atto": (True, True), "cs3darknet_s": (True, True), "mixnet_s": (True, True), "nf_regnet_b0": (True, True),
    "mobilevit_s": (True, True), "regnetx_002": (True, True), "res2next50": (True, True), "resnetv2_18": (True, True),
    "rexnet_100": (True, True), "skresnet18": (True, True), "densenet121": (True, False), "dla34": (True, False),
    "edgenext_small": (True, False), "fastvit_s12": (True, False), "ghostnet_050": (True, False),
    "hrnet_w18": (True, False), "pvt_v2_b0": (True, False), "starnet_s1": (True, False), "vgg11": (True, False),
    "deit_tiny_patch16_224": (False, False), "shvit_s1": (False, False), "visformer_tiny": (False, False),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_an_encoder_of_timm_is_refused_where_smp_cannot_build_it(name: str) -> None:
    assert name in timm_names()
    for decoder, fits in zip(("unet", "deeplabv3"), FAMILIES[name], strict=True):
        assert (incompatible(f"tu-{name}", decoder) is None) == fits
        settings = Settings.model_validate({"encoder": f"tu-{name}", "decoder": decoder})
        try:
            with torch.device("meta"):
                network.build(settings)
            built = True
        except UserError:
            built = False
        assert built == fits, decoder


@pytest.mark.parametrize(
    ("model", "precision"), [("mobilenet-unet", "bf16-mixed"), ("efficientnet-b0-unet", "16-mixed")]
)
def test_strided_depthwise_convolutions_in_mixed_precision_compute_what_others_do(model: str, precision: str) -> None:
    torch.manual_seed(0)
    nets = [copy.deepcopy(build(model=model, precision=precision)), build(model=model)]
    nets[1].load_state_dict(nets[0].state_dict())
    both = [[conv for conv in net.modules() if isinstance(conv, torch.nn.Conv2d)] for net in nets]
    strided = [pair for pair in zip(*both, strict=True) if pair[0].groups > 1 and max(pair[0].stride) > 1]
    assert len(strided) == 4
    for pair in strided:
        images = torch.randn(2, pair[0].in_channels, 16, 16).bfloat16()
        found = []
        for conv in pair:
            x = images.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16):
                y = conv(x)
            assert y.dtype == torch.bfloat16
            y.float().square().sum().backward()
            found.append([y.float(), x.grad.float(), conv.weight.grad])  # type: ignore[union-attr]
        for ours, plain in zip(*found, strict=True):
            assert torch.allclose(ours, plain, rtol=0.02, atol=0.02 * float(plain.detach().abs().max()))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_dilated_depthwise_convolutions_have_the_gradients_that_float32_has(precision: str) -> None:
    """torch's own are made of memory that nobody has written."""
    convolutions = [
        module
        for module in build(model="cgnet", precision=precision).modules()
        if isinstance(module, torch.nn.Conv2d) and module.groups > 1 and max(module.dilation) > 1
    ]
    assert len(convolutions) > 10
    mixed = precision == "bf16-mixed"
    for conv in convolutions[:4]:
        torch.manual_seed(0)
        images = torch.randn(4, conv.in_channels, 32, 32).to(memory_format=torch.channels_last)
        plain = torch.nn.functional.conv2d(
            images, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        upstream = torch.randn_like(plain)
        (expected,) = torch.autograd.grad(plain, conv.weight, upstream)
        del plain
        if not mixed:
            conv.bfloat16()
        x = images.bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            y = conv(x)
        assert y.dtype == torch.bfloat16
        y.backward(upstream.bfloat16())
        assert conv.weight.grad is not None
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert torch.allclose(conv.weight.grad.float(), expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))


# espnetv2 has short side branches for the image itself, whose one channel they forget the strides of.
@pytest.mark.parametrize("model", [*sorted({*NETWORKS} - {"espnetv2"}), "mobilenet-unet"])
def test_channels_stay_innermost_through_the_whole_network(model: str) -> None:
    wrong = []

    def look(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, torch.nn.BatchNorm2d) and not output.is_contiguous(memory_format=torch.channels_last):
            wrong.append(module)

    net = build(model=model, image_size=128)
    for module in net.modules():
        module.register_forward_hook(look)
    net(channels_last(torch.randn(2, 1, 128, 128)))
    assert not wrong


@pytest.mark.parametrize("model", ["lraspp", "mobilenetv3-tiny-unet", "tu-vit_tiny_patch16_224-dpt", "enet"])
def test_networks_for_sophia_can_be_differentiated_twice_and_compute_the_same(model: str) -> None:
    torch.manual_seed(0)
    once = build(model=model, image_size=64).eval().double()  # so that rounding is no difference
    twice = build(model=model, image_size=64, optimizer="sophia").eval().double()
    twice.load_state_dict(once.state_dict())
    images = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(twice(images), once(images))
    twice(images).pow(2).mean().backward(create_graph=True)
    parameters = [p for p in twice.parameters() if p.grad is not None and p.grad.requires_grad]
    squares = [p.grad.pow(2).sum() for p in parameters if p.grad is not None]
    found = torch.autograd.grad(torch.stack(squares).sum(), parameters, allow_unused=True)
    assert any(second is not None and second.abs().sum() > 0 for second in found)
    for parameter in parameters:
        parameter.grad = None  # else gradient and graph keep each other alive
