"""Committed and rendered ``config.pbtxt`` files, read with Triton's own definitions, against the contracts."""

import pytest
from google.protobuf import text_format

from builders.render import CPU_ONLY, ONE_GPU, TWO_GPUS, Placement, render_repository
from runtime.contracts import ALL_MODELS
from runtime.errors import BuildError
from runtime.manifest import PACKAGE_ROOT, REPOSITORY
from runtime.supervisor.config import LOAD_ORDER, PUBLIC_MODEL

model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
CONTRACTS = {contract.name: contract for contract in ALL_MODELS}
ENSEMBLES = {"speech_encoder": ["log_mel", "audio_encoder"], "token2wav": ["flow", "vocoder"]}
PLACEMENTS = {"cpu": CPU_ONLY, "one": ONE_GPU, "two": TWO_GPUS}


def read(folder):
    """All configurations of a repository by folder name; an unknown field or value does not parse."""
    paths = sorted(folder.glob("*/config.pbtxt"))
    return {p.parent.name: text_format.Parse(p.read_text("utf-8"), model_config_pb2.ModelConfig()) for p in paths}


@pytest.fixture(params=["committed", *PLACEMENTS])
def rendered(request, tmp_path):
    if request.param == "committed":
        return CPU_ONLY, read(PACKAGE_ROOT / REPOSITORY)
    render_repository(tmp_path, PLACEMENTS[request.param])
    return PLACEMENTS[request.param], read(tmp_path / REPOSITORY)


def test_every_model_has_a_contract_and_is_loaded(rendered):
    _, configs = rendered
    assert sorted(configs) == sorted(CONTRACTS) == sorted(name for stage in LOAD_ORDER for name in stage)
    for name, config in configs.items():
        assert config.name == name and config.max_batch_size == 0
        assert config.platform == ("ensemble" if name in ENSEMBLES else "")
        assert config.backend == ("" if name in ENSEMBLES else "python")
        assert config.model_transaction_policy.decoupled == CONTRACTS[name].decoupled


def entries(specs):
    return [(s.name, "TYPE_STRING" if s.dtype == "BYTES" else f"TYPE_{s.dtype}", s.dims) for s in specs]


def written(tensors):
    return [(t.name, model_config_pb2.DataType.Name(t.data_type), tuple(t.dims)) for t in tensors]


def test_what_is_written_of_inputs_and_outputs_is_the_contract(rendered):
    """Python models get theirs from the contract at load time; ensembles must spell them out."""
    _, configs = rendered
    for name, config in configs.items():
        contract = CONTRACTS[name]
        assert written(config.input) == (entries(contract.inputs) if name in ENSEMBLES else [])
        assert written(config.output) == (entries(contract.outputs) if name in ENSEMBLES else [])


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_feed_every_tensor_of_their_steps(rendered, name):
    config, contract = rendered[1][name], CONTRACTS[name]
    steps = config.ensemble_scheduling.step
    assert [step.model_name for step in steps] == ENSEMBLES[name]
    known = {spec.name: spec for spec in contract.inputs}
    for step in steps:
        member = CONTRACTS[step.model_name]
        assert set(step.input_map) == {s.name for s in member.inputs if not s.optional}
        assert set(step.output_map) <= {s.name for s in member.outputs}
        for spec in member.inputs:
            source = known[step.input_map[spec.name]]
            assert (source.dtype, source.dims) == (spec.dtype, spec.dims), f"{name}: {spec.name}"
        known |= {step.output_map[s.name]: s for s in member.outputs if s.name in step.output_map}
    assert {spec.name for spec in contract.outputs} <= set(known)


def test_every_model_has_one_instance_where_the_placement_says(rendered):
    placement, configs = rendered
    group = model_config_pb2.ModelInstanceGroup
    for name, config in configs.items():
        if name in ENSEMBLES:
            assert not config.instance_group
            continue
        (instances,) = config.instance_group
        gpu = placement.gpus.get(name)
        assert instances.count == 1
        assert instances.kind == (group.KIND_CPU if gpu is None else group.KIND_GPU)
        assert list(instances.gpus) == ([] if gpu is None else [gpu])


def test_two_gpus_take_token2wav_off_the_first():
    first = {name for name, gpu in TWO_GPUS.gpus.items() if gpu == 0}
    second = {name for name, gpu in TWO_GPUS.gpus.items() if gpu == 1}
    assert PUBLIC_MODEL in first and second == {"flow", "vocoder"}
    assert set(TWO_GPUS.gpus) == set(ONE_GPU.gpus) == set(CONTRACTS) - set(ENSEMBLES) - {"log_mel"}


def test_the_warm_up_fits_the_contract(rendered):
    config, contract = rendered[1][PUBLIC_MODEL], CONTRACTS[PUBLIC_MODEL]
    (warmup,) = config.model_warmup
    inputs = {spec.name: spec for spec in contract.inputs}
    for name, sample in warmup.inputs.items():
        assert model_config_pb2.DataType.Name(sample.data_type) == f"TYPE_{inputs[name].dtype}"
        if sample.input_data_file:
            data = PACKAGE_ROOT / REPOSITORY / PUBLIC_MODEL / "warmup" / sample.input_data_file
            assert data.stat().st_size == 4 * sample.dims[0]


@pytest.mark.parametrize("model", ["token2wav", "nowhere"])
def test_a_model_without_instances_cannot_be_placed(tmp_path, model):
    with pytest.raises(BuildError, match=f"{model}/config.pbtxt"):
        render_repository(tmp_path, Placement({model: 0}))
    with pytest.raises(ValueError, match="flow: -1"):
        Placement({"flow": -1})
