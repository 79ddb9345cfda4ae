"""What the tests of the tabs share."""

from playwright.sync_api import Page

# what is there once a tab has its picture
PICTURES = {
    "Your digit": "#modes .paired",
    "X-ray": "#xray .numbers",
    "Chance": "#chance .figure svg >> nth=1",
    "Worked out": "#worked .flow img >> nth=5",
    "Why": "#maps .maps img >> nth=0",
    "Statistics": "#statistics table",
    "Faults": "#faults .figure svg >> nth=2",
    "Corruption": "#corruption .strip img >> nth=5",
    "Initialise": "#stack .figure svg",
    "Inputs": "#inputs .figure svg",
    "Gradients": "#gradients .figure svg",
    "Convergence": "#convergence .figure svg",
    "Stopping": "#stopping .figure svg",
    "Export": "#speed table",
}


def choose_tab(page: Page, title: str) -> None:
    """Click a tab and wait for its picture."""
    page.get_by_role("tab", name=title, exact=True).click()
    page.wait_for_selector(PICTURES[title])
