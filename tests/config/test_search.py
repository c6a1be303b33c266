"""Where a configuration is looked for, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from rubberduck.config import find_config, searched
from rubberduck.errors import ConfigError


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    for name in ("work", "xdg/rubberduck", "home/.config/rubberduck"):
        (tmp_path / name).mkdir(parents=True)
    return {"work": tmp_path / "work", "xdg": tmp_path / "xdg", "home": tmp_path / "home"}


def test_the_nearer_place_wins(places: dict[str, Path]) -> None:
    work = places["work"] / "rubberduck.toml"
    xdg = places["xdg"] / "rubberduck" / "rubberduck.yaml"
    home = places["home"] / ".config" / "rubberduck" / "rubberduck.yml"
    for file in (work, xdg, home):
        file.write_text("")
    environ = {
        "RUBBERDUCK_CONFIG": "/named/by/variable.yaml",
        "XDG_CONFIG_HOME": str(places["xdg"]),
        "HOME": str(places["home"]),
    }
    search = {"directory": places["work"], "as_root": False}
    assert find_config("given.yaml", environ=environ, **search) == Path("given.yaml")  # type: ignore[arg-type]
    assert find_config(environ=environ, **search) == Path("/named/by/variable.yaml")  # type: ignore[arg-type]
    del environ["RUBBERDUCK_CONFIG"]
    assert find_config(environ=environ, **search) == work  # type: ignore[arg-type]
    work.unlink()
    assert find_config(environ=environ, **search) == xdg  # type: ignore[arg-type]
    environ["XDG_CONFIG_HOME"] = "relative"
    assert find_config(environ=environ, **search) == home  # type: ignore[arg-type]
    home.unlink()
    assert find_config(environ=environ, **search) is None  # type: ignore[arg-type]


def test_root_does_not_take_what_lies_in_the_working_directory(places: dict[str, Path]) -> None:
    (places["work"] / "rubberduck.yaml").write_text("")
    assert find_config(environ={}, directory=places["work"], as_root=True) is None
    assert find_config(environ={}, directory=places["work"], as_root=False) is not None


def test_two_in_one_place_are_refused(places: dict[str, Path]) -> None:
    for name in ("rubberduck.yaml", "rubberduck.toml"):
        (places["work"] / name).write_text("")
    with pytest.raises(ConfigError, match=r"has rubberduck\.yaml and rubberduck\.toml; keep one"):
        find_config(environ={}, directory=places["work"], as_root=False)


def test_the_working_directory_is_the_processs(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(places["work"])
    (places["work"] / "rubberduck.yaml").write_text("")
    assert find_config(environ={}, as_root=False) == Path("rubberduck.yaml")


def test_where_it_looks_is_told_as_it_is() -> None:
    """To root it was said that the working directory had been looked at, which it never is."""
    assert searched(as_root=False) == "here and in $XDG_CONFIG_HOME/rubberduck"
    assert "has to be named" in searched(as_root=True)
