"""What a plan is made of, told in lines."""

from types import SimpleNamespace

import pytest

from builders.tensorrt.layers import main, summary
from runtime.errors import BuildError


def test_kernels_are_counted_most_first():
    attention = {"LayerType": "kgen", "TacticName": "_gemm_mha_v2"}
    layers = [{"LayerType": "Reformat"}, attention, attention]
    assert summary(SimpleNamespace(layers=lambda: layers)) == ["     2 kgen: _gemm_mha_v2", "     1 Reformat: ?"]


def test_without_tensorrt_it_is_one_line(tmp_path):
    with pytest.raises(BuildError, match="tensorrt: cannot be imported"):
        main(["--out", str(tmp_path)])
