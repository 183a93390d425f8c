"""The from-scratch techniques, one module each; lessons show them by reference."""
