"""The two themes: one accent, the heatmap's orange, with its blue as the second colour."""

from textual.theme import Theme

DARK = Theme(
    name="irm-dark",
    primary="#ed6b34",
    secondary="#5b93e0",
    accent="#ed6b34",
    warning="#e3b341",
    error="#e5534b",
    success="#57ab5a",
    foreground="#d5d9e0",
    background="#14161a",
    surface="#1b1e24",
    panel="#262a32",
    dark=True,
    variables={
        "footer-key-foreground": "#ed6b34",
        "border": "#ed6b34",
        "border-blurred": "#3a3f4a",
        "input-selection-background": "#ed6b34 35%",
    },
)

LIGHT = Theme(
    name="irm-light",
    primary="#b8430f",
    secondary="#2a5da8",
    accent="#b8430f",
    warning="#8a5d00",
    error="#b3261e",
    success="#2b7a37",
    foreground="#22262e",
    background="#faf9f7",
    surface="#f1efeb",
    panel="#e4e1db",
    dark=False,
    variables={
        "footer-key-foreground": "#b8430f",
        "border": "#b8430f",
        "border-blurred": "#bdb8ae",
        "input-selection-background": "#b8430f 25%",
    },
)
