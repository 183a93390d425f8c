"""Contrast of words on their background as WCAG 2 defines it, computed in the page.

How it works: of every text that is seen below the chosen elements, the computed colour is laid over
the backgrounds of its ancestors, outermost last; the ratio is that of the two relative luminances.
Left out: text over a picture, and the lower limit that WCAG allows for large letters.
"""

from __future__ import annotations

from typing import Any

ENOUGH = 4.5  # WCAG 2.2, success criterion 1.4.3, level AA
_LOW = """([selectors, enough]) => {
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = (css) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = css;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((c, i) => c * a + below[i] * (1 - a));
    const luminance = ([r, g, b]) =>
        0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const backOf = (element) => {
        if (!element) return [255, 255, 255];
        const color = rgba(getComputedStyle(element).backgroundColor);
        return color[3] === 1 ? color : over(color, backOf(element.parentElement));
    };
    const opacityOf = (element) => element
        ? Number(getComputedStyle(element).opacity) * opacityOf(element.parentElement) : 1;
    const ratioOf = (element) => {
        const back = backOf(element), color = rgba(getComputedStyle(element).color);
        color[3] *= opacityOf(element);
        const [high, low] = [luminance(back), luminance(over(color, back))].sort((a, b) => b - a);
        return (high + 0.05) / (low + 0.05);
    };
    const owners = new Set();
    for (const root of document.querySelectorAll(selectors)) {
        const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        for (let text = texts.nextNode(); text; text = texts.nextNode())
            if (text.data.trim()) owners.add(text.parentElement);
    }
    const seen = [...owners].filter((each) => each.checkVisibility({visibilityProperty: true}));
    const low = seen.map((each) => [ratioOf(each), each.textContent.trim().slice(0, 60),
                                    `${each.tagName}.${each.className}`])
        .filter(([ratio]) => ratio < enough);
    return [seen.length, low];
}"""


def texts_and_low_ones(page: Any, selectors: str) -> tuple[int, list[Any]]:
    """How many texts are seen below these elements, and (ratio, text, element) of the low ones."""
    number, low = page.evaluate(_LOW, [selectors, ENOUGH])
    return number, low
