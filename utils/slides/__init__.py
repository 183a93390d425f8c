"""One reveal.js deck for each lesson, from the stored notebooks: `python -m utils.slides`."""
