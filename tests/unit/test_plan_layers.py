"""What a plan is made of, told in lines."""

from types import SimpleNamespace

from builders.tensorrt.layers import main, summary


def test_kernels_are_counted_most_first():
    attention = {"LayerType": "kgen", "TacticName": "_gemm_mha_v2"}
    layers = [{"LayerType": "Reformat"}, attention, attention]
    assert summary(SimpleNamespace(layers=lambda: layers)) == ["     2 kgen: _gemm_mha_v2", "     1 Reformat: ?"]


def test_without_tensorrt_it_is_one_line(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("INTERNAL: tensorrt: cannot be imported")
