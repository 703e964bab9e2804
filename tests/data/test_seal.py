import subprocess
import sys


def test_what_a_search_imports_does_not_bring_the_sealed_reader():
    """The import contracts say it of the source; this says it of a running process."""
    code = (
        "import sys, naskd.data, naskd.data.load, naskd.data.views, naskd.data.batches\n"
        "from pathlib import Path\n"
        "from naskd.spec.datasets import DataSpec\n"
        "naskd.data.load.load_search_data(DataSpec('digits'), Path())\n"
        "assert 'naskd.data.sealed' not in sys.modules\n"
        "assert not {'optuna', 'ray', 'torchvision'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
