"""A backbone with experts, built for target ``cpu``, behind the real server: the authors' ids, alone and together."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import moe_data
import pytest
from harness import collect, request_of

from builders.build import build
from builders.request import BuildRequest
from client import ChatClient
from runtime.options import Options
from runtime.supervisor.launch import ServerProcess

BUILT_VARIABLE = "GOLDEN_BUILT_EXPERTS"  # a folder that this test's build made earlier
NAMES = ("s2s_noise_2p3s", "s2t_tones_7s", "s2s_rep", "s2s_multiturn")


@pytest.fixture(scope="module")
def served(triton, request, tmp_path_factory):
    """The dense build's folder, built once more for the other checkpoint: sound is unchanged and not exported again."""
    if BUILT_VARIABLE in os.environ:
        folder = Path(os.environ[BUILT_VARIABLE])
    else:
        dense = request.getfixturevalue("built")
        folder = tmp_path_factory.mktemp("experts") / "cpu"
        shutil.copytree(dense, folder, ignore=shutil.ignore_patterns("run"))
        options, said = Options.read(folder), []
        cosyvoice = options.path(options.cosyvoice)
        build(BuildRequest("cpu", folder, moe_data.checkpoint(), cosyvoice), said.append)
        assert "token2wav: unchanged" in said and any("2 of 8 experts a row" in line for line in said)
    with ServerProcess(folder) as running:
        yield running


def test_the_authors_ids_alone_and_together(served):
    with ChatClient(served.url) as client, ThreadPoolExecutor(len(NAMES)) as pool:
        alone = [collect(client, **request_of(NAMES[0], moe_data.FOLDER))]
        together = pool.map(lambda name: collect(client, **request_of(name, moe_data.FOLDER)), NAMES)
        for name, answer in zip((NAMES[0], *NAMES), [*alone, *together], strict=True):
            golden = moe_data.run(name)
            assert answer.ids == golden["text_ids"].tolist(), name
            assert answer.codes == golden["speech_ids"].tolist(), name
            assert bool(len(answer.sound)) == name.startswith("s2s")
