"""The decks in Chromium, from the disk: paged to the end, with nothing cut off and no network."""

from pathlib import Path

import pytest

from utils.slides.main import SlidesError, lessons, reveal_folder, write_slides
from utils.slides.shapes import HEIGHT_PX, WIDTH_PX

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
# Pixels of the slide's own scale; a box that scrolls may hold more than it shows.
EXTENT = """() => {
    const slide = Reveal.getCurrentSlide(), scale = Reveal.getScale();
    const corner = slide.getBoundingClientRect();
    const drawn = [...slide.querySelectorAll("*")]
        .filter((each) => !each.parentElement.closest(".scrolls"))
        .map((each) => each.getBoundingClientRect()).filter((box) => box.width && box.height);
    const wide = [...slide.querySelectorAll("pre")]
        .filter((each) => !each.closest(".scrolls") && each.scrollWidth > each.clientWidth + 1);
    return {
        right: Math.max(...drawn.map((box) => box.right - corner.left)) / scale,
        bottom: Math.max(...drawn.map((box) => box.bottom - corner.top)) / scale,
        wide: wide.map((each) => each.textContent), text: slide.innerText.slice(0, 60),
        images: [...slide.querySelectorAll("img")].every((each) => each.complete && each.alt),
    };
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    try:
        reveal_folder()
    except SlidesError as missing:
        pytest.skip(str(missing))
    return write_slides(ROOT, tmp_path_factory.mktemp("a deck's folder"))


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", [path.stem for path in lessons(ROOT)])
def test_a_deck_is_paged_to_its_end(page, folder, name):
    trouble = []
    page.on("console", lambda message: trouble.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"page error: {error}"))
    page.on("requestfailed", lambda request: trouble.append(f"failed: {request.url[:99]}"))
    page.on("request", lambda request: trouble.extend(_outside(request.url)))
    page.goto((folder / f"{name}.html").as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    for _ in range(page.evaluate("Reveal.getTotalSlides()")):
        seen = page.evaluate(EXTENT)
        assert seen["bottom"] <= HEIGHT_PX - 20 and seen["right"] <= WIDTH_PX, seen
        assert not seen["wide"] and seen["images"] and seen["text"].strip(), seen
        is_last = page.evaluate("Reveal.isLastSlide()")
        page.keyboard.press("Space")
    assert is_last and not trouble, trouble


def _outside(url):
    return [] if url.startswith(("file:", "data:")) else [f"asked the network for {url[:99]}"]


def test_an_entry_of_the_contents_leads_to_its_section(page, folder):
    page.goto((folder / "09_yafsdp.html").as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    page.evaluate("document.querySelector('.slides a[href^=\"#3\"]').click()")
    page.wait_for_function("Reveal.getCurrentSlide().innerText.startsWith('3. Two buffers')")
