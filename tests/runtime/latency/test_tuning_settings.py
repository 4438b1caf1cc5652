import pytest

from sefa_runtime.latency.tuning_settings import arrangements, described, in_order, in_words, kinds
from sefa_runtime.session.tuned import Setting, unsafe_options

SPIN = "session.intra_op.spin_duration_us"
PROVIDERS = ("cpu", "openvino", "cuda", "tensorrt", "dml")


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("cores", [1, 2, 6, 8])
def test_every_arrangement_keeps_to_the_cores(provider: str, cores: int) -> None:
    settings = arrangements(Setting("m", provider), cores)
    assert settings[0] == Setting("m", provider, threads=cores)  # The default.
    assert Setting("m", provider, threads=1) in settings
    assert (Setting("m", provider, instances=cores, threads=1) in settings) == (cores > 1 or len(settings) == 1)
    assert len({str(setting) for setting in settings}) == len(settings)
    assert all(setting.instances * (setting.threads or 0) <= cores for setting in settings)


def test_what_the_caller_set_is_not_varied() -> None:
    given = Setting("m", "cpu", options={SPIN: "500"})
    assert all(setting.options == given.options for setting in arrangements(given, 2))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_default_comes_first_and_all_can_be_kept_in_a_file(provider: str) -> None:
    found = kinds(provider, "m", ["avx512_bf16"])
    assert found[0] == Setting("m", provider)
    assert len({str(kind) for kind in found}) == len(found)
    for kind in found:
        assert all(not unsafe_options(setting.options) for setting in arrangements(kind, 2))


def test_bfloat16_where_the_cpu_has_it() -> None:
    assert any("bf16" in in_words(kind) for kind in kinds("openvino", "m", ["avx2", "avx512_bf16"]))
    assert not any("bf16" in in_words(kind) for kind in kinds("openvino", "m", ["avx2", "avx512f"]))


def test_settings_in_words() -> None:
    kind = kinds("openvino", "m", ["amx_bf16"])[2]
    assert described(arrangements(kind, 2)[-1]) == (
        "openvino, static shapes, bf16, styles and 8 convolutions on the CPU, 2 instances of 1 thread"
    )
    assert described(Setting("m", "cuda", options={"prefer_nhwc": "1"})) == "cuda, prefer_nhwc=1, 1 instance"


def test_providers_are_in_the_order_of_auto() -> None:
    assert in_order(["dml", "openvino", "cpu", "tensorrt", "cuda"]) == ["cuda", "cpu", "tensorrt", "openvino", "dml"]
