"""The HTML page: what is in it, and what it does in a browser."""

import asyncio
import json
import re
import shlex
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from greenseg.cli.options import with_settings
from greenseg.report.page import as_html, page_data, train_command
from greenseg.report.reader import read_runs
from greenseg.report.results import by_configuration
from greenseg.report.run import Run
from greenseg.report.select import Query
from greenseg.runs.directory import RunDirectory, find_runs
from greenseg.settings import Settings, choices
from tests.report.browser import CHROMIUM, Page, chromium
from tests.report.comparisons import compared
from tests.report.test_comparison import grid, one
from tests.runs import energy, epoch, record, typed, write, write_many

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


def page_of(folder: Path, **query: Any) -> str:
    asked = Query(**query)
    comparison = asked.compare(by_configuration(read_runs(find_runs([folder]))[0]))
    return as_html(comparison, asked.rows(comparison), asked.names(comparison))


# ── what is in it


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = as_html((comparison := compared(*grid())), comparison.rows, None)
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "a namespace, not a place"
    assert not re.findall(r"<(?:link|img|iframe)\b|\bsrc=|@import|url\(", text)


def test_whatever_a_setting_holds_stays_data() -> None:
    evil = "</script><script>alert(1)</script><!--&amp;\u2028{{title}}"
    comparison = compared(record({"data": f"/{evil}"}), record({"data": "/b"}))
    text = as_html(comparison, comparison.rows, None)
    assert text.count("</script>") == 2
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert any(evil in found["settings"]["data"] for found in json.loads(data)["rows"])


def test_the_page_has_what_failed_and_what_was_estimated() -> None:
    comparison = compared(
        one(0.8, 100, epochs=1),
        one(0.9, 100, "cpu_estimate", epochs=2),
        record({"epochs": 3}, "failed", error="E", kind="out_of_gpu_memory"),
    )
    rows = {row["label"]: row for row in page_data(comparison, comparison.rows, None)["rows"]}
    assert [rows[f"epochs={n}"]["estimated"] for n in (1, 2, 3)] == [False, True, False]
    assert rows["epochs=1"]["kind"] != rows["epochs=2"]["kind"]
    assert rows["epochs=3"]["status"] == "failed: out of GPU memory"
    assert rows["epochs=3"]["figures"].keys() <= {"params"}


def another(name: str) -> Any:
    """A value of a setting that is not its default."""
    default = Settings.model_fields[name].default
    if choices(name):
        return next(value for value in choices(name) if value != default)
    words = {
        "data": "a path/it's",
        "encoder": "resnet34",
        "decoder": "fpn",
        "country": "",
        "channels": "T2w,T1w",
        "split_from": "a path/it's.csv",
        "pue": 1.5,
        "decoder_width": 32,
        "teacher": "a path/it's-0123456789abcdef",
        "distill_temperature": 4.0,
        "image_size": 64,
    }
    if isinstance(default, bool):
        return not default
    return words.get(name, 0.5 if isinstance(default, float) else 3)


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if not field.exclude])
def test_the_command_repeats_the_run(name: str) -> None:
    needs: dict[str, dict[str, Any]] = {"fold": {"folds": 5}, "width": {"model": "enet"}}
    changed = {name: another(name)} | needs.get(name, {})
    settings = Settings.of(changed)
    run = Run(RunDirectory(Path("runs/x")), "finished", typed(record(changed)))
    program, subcommand, *arguments = shlex.split(train_command(run))
    assert (program, subcommand) == ("greenseg", "train")
    given: dict[str, Any] = {}

    def command(settings: Annotated[Any, typer.Option()] = None) -> None:
        given.update(settings)

    app = typer.Typer()
    app.command()(with_settings(command))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert Settings.of(given) == settings


# ── in a browser


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two precisions × three batch sizes × two seeds, and of one that failed."""
    folder = tmp_path_factory.mktemp("page")
    for precision, dice, share in (("32-true", 0.85, 1.0), ("bf16-mixed", 0.83, 0.6)):
        for batch, factor in ((8, 1.0), (16, 1.4), (32, 1.9)):
            for seed in (0, 1):
                written = record(
                    {"precision": precision, "batch_size": batch, "seed": seed},
                    dice=dice + batch / 2000 + 0.002 * seed,
                    total=energy(50, gpu_nvml=20_000 * share * factor + 100 * seed),
                )
                part = energy(1, gpu_nvml=2_000 * share * factor)
                lines = [
                    epoch(n, dice=dice * (n + 1) / 10, train=part, validation=energy(1, gpu_nvml=9)) for n in range(10)
                ]
                write(folder, written, lines)
    write(folder, record({"batch_size": 64}, "failed", error="E", kind="out_of_gpu_memory"))
    file = folder / "page.html"
    file.write_text(page_of(folder), encoding="utf-8")
    return file


def browse(file: Path, use: Callable[[Page], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Open a page and use it; it must neither raise an error nor ask the network for anything."""

    async def session() -> None:
        async with chromium() as page:
            await page.open(file, **options)
            await use(page)
            methods = [event["method"] for event in page.events]
            assert "Runtime.exceptionThrown" not in methods, page.events
            asked = {e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"}
            assert {url.partition("#")[0] for url in asked} <= {file.resolve().as_uri()}

    asyncio.run(session())


async def place(page: Page, test: str) -> tuple[float, float]:
    """Where in the window the first point of this kind is."""
    x, y = await page.run(
        f"(() => {{ const p = points.find(p => {test}), b = canvas.getBoundingClientRect(); "
        "return [p.x + b.left, p.y + b.top]; })()"
    )
    return x, y


async def text(page: Page, selector: str) -> str:
    return str(await page.run(f"document.querySelector({json.dumps(selector)}).innerText"))


@needs_chromium
def test_hover_choose_and_zoom(sweep: Path) -> None:
    async def use(page: Page) -> None:
        assert await text(page, "h1") == "Dice against energy: 7 configurations, 13 runs"
        assert await text(page, "#count") == "7 of 7 configurations, 5 on the front"
        x, y = await place(page, "p.row.settings.precision === 'bf16-mixed' && p.row.settings.batch_size === '16'")
        await page.mouse("mouseMoved", x, y)
        tip = await text(page, "#tip")
        assert "batch_size=16 bf16-mixed" in tip
        assert "Dice: 0.8390 ±0.0" in tip
        await page.click(x, y)
        detail = await text(page, "#detail")
        assert "batch_size=16 bf16-mixed" in detail
        assert "greenseg train" in detail
        assert "--batch-size 16" in detail
        assert "--seed 1" in detail
        assert await page.run("document.querySelectorAll('#detail polyline').length") == 4, (
            "its repeats, the baseline's"
        )
        assert (await page.run("location.hash"))[1:] == await page.run("document.querySelector('tr.chosen').dataset.id")

        before = await page.run("state.view.x[1] - state.view.x[0]")
        await page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100)
        assert await page.run("state.view.x[1] - state.view.x[0]") == pytest.approx(before / 1.2)
        assert await place(page, "p.row === state.chosen") == pytest.approx((x, y), abs=1), "zoomed about the mouse"
        await page.mouse("mousePressed", x + 40, y + 40, button="left", clickCount=1)
        await page.mouse("mouseMoved", x + 70, y + 20, button="left", buttons=1)
        await page.mouse("mouseReleased", x + 70, y + 20, button="left", clickCount=1)
        assert await place(page, "p.row === state.chosen") == pytest.approx((x + 30, y - 20), abs=1), "dragged along"
        await page.run("document.getElementById('reset').click()")
        await page.frame()
        assert await place(page, "p.row === state.chosen") == pytest.approx((x, y), abs=1)

    browse(sweep, use)


@needs_chromium
def test_filters_axes_and_sorting(sweep: Path) -> None:
    async def use(page: Page) -> None:
        press = "[...document.querySelectorAll('.filter button')].find(b => b.textContent === '{}').click()"
        await page.run(press.format("32-true"))
        assert await text(page, "#count") == "3 of 7 configurations, 3 on the front"
        await page.run(press.format("32-true"))
        await page.run(
            "(s => { s.value = 'params'; s.dispatchEvent(new Event('change')) })(document.getElementById('x'))"
        )
        await page.frame()
        assert await text(page, "#count") == "7 of 7 configurations, 1 on the front", "all have as many parameters"

        first = "document.querySelector('tbody tr').innerText"
        sort = "[...document.querySelectorAll('th button')].find(b => b.textContent.startsWith('{}')).click()"
        await page.run(sort.format("total"))
        assert "12,050\t" in await page.run(first)
        assert await page.run("[...document.querySelectorAll('th[aria-sort=ascending]')].map(t => t.innerText)") == [
            "total J ↑"
        ]
        await page.run(sort.format("total"))
        assert "38,050\t" in await page.run(first)
        assert "out of GPU memory" in await page.run("document.querySelector('tbody tr:last-child').innerText")
        await page.run("document.querySelector('tbody tr').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}))")
        assert "batch_size=32 32-true" in await text(page, "#detail h2")

    browse(sweep, use)


@needs_chromium
def test_a_link_opens_a_configuration(sweep: Path) -> None:
    async def use(page: Page) -> None:
        chosen = await page.run("data.rows[2].id")
        await page.send("Page.navigate", url="about:blank")
        await page.send("Page.navigate", url=f"{sweep.resolve().as_uri()}#{chosen}")
        while not await page.run("document.readyState === 'complete' && !!window.document.querySelector('tr.chosen')"):
            await asyncio.sleep(0.05)
        assert await page.run("state.chosen.id") == chosen

    async def session() -> None:
        async with chromium() as page:
            await page.open(sweep)
            await use(page)

    asyncio.run(session())


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_have_contrast(sweep: Path, dark: bool, tmp_path: Path) -> None:
    """By the formula of WCAG 2: text 4.5 to 1 at least, points 3 to 1."""
    ratio = """(() => {
      const style = getComputedStyle(document.documentElement);
      const linear = u => u <= 0.03928 ? u / 12.92 : ((u + 0.055) / 1.055) ** 2.4;
      const light = name => { const v = style.getPropertyValue('--' + name).trim().slice(1);
        const c = [0, 2, 4].map(i => linear(parseInt(v.slice(i, i + 2), 16) / 255));
        return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
      return (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
    })()"""

    async def use(page: Page) -> None:
        paper = await page.run("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
        for ink, least in (
            ("ink", 7),
            ("soft", 4.5),
            ("warn", 4.5),
            ("bad", 4.5),
            ("front", 4.5),
            ("base", 3),
            ("other", 3),
        ):
            assert await page.run(f"({ratio})('{ink}', 'paper')") >= least, ink
        await page.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 20_000

    browse(sweep, use, dark=dark)


@needs_chromium
def test_a_thousand_points(tmp_path: Path) -> None:
    write_many(tmp_path, 1000, epochs=2, repeats=1)
    file = tmp_path / "page.html"
    file.write_text(page_of(tmp_path), encoding="utf-8")

    async def use(page: Page) -> None:
        assert (await text(page, "#count")).startswith("1000 of 1000 configurations, ")
        expected = [row.on_front for row in Query().compare(by_configuration(read_runs(find_runs([tmp_path]))[0])).rows]
        assert await page.run("data.rows.map(row => front.has(row))") == expected, "both find the same front"
        assert await page.run("document.querySelectorAll('tbody tr').length") == 200
        await page.run("document.getElementById('more').click()")
        assert await page.run("document.querySelectorAll('tbody tr').length") == 1000

    browse(file, use)
