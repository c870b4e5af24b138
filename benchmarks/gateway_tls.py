"""A certificate for localhost that signs itself, made by the openssl command."""

import subprocess
from pathlib import Path


def certificate(folder: Path) -> Path:
    """Key and certificate in one file; good as SSL_CERT_FILE too."""
    key, made, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {key} -out {made}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    both.write_text(key.read_text() + made.read_text())
    return both
