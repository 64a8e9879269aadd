"""Many requests at once, many times over: each gets its own tokens, and no process grows."""
import json
import subprocess
import sys

import pytest

from conftest import BIN, LINUX, ROOT, SLOW


@pytest.mark.skipif(not LINUX, reason="what counts as resident differs elsewhere")
def test_2000_requests_over_two_workers_get_their_own_tokens_in_flat_memory(woolly, tiny):
    script = ROOT / "tests" / "bench" / "many_requests.py"
    done = subprocess.run([sys.executable, script, "-m", tiny, "--woolly", BIN / "woolly", "--tokens", "4", "--json"],
                          env=woolly.env, capture_output=True, text=True, timeout=60 * SLOW, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["at_once"]["answers"] == 64 and result["many"]["answers"] == 2064
    for row in (result["at_once"], result["many"]):
        for key in ("ttft_s", "between_tokens_s"):
            times = row[key]
            assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
    first, *_, last = result["resident_bytes"].values()
    assert set(first) == {"coordinator", "worker 0", "worker 1"}
    for process, size in first.items():
        assert last[process] < size + (2 << 20), f"{process} grows: {result['resident_bytes']}"
