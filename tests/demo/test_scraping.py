"""Which pods the demo's Prometheus scrapes."""

from __future__ import annotations

import yaml

from demo.scraping import configuration, targets

ASKS = {"prometheus.io/scrape": "true", "prometheus.io/port": "9709", "prometheus.io/path": "/metrics"}


def _pod(annotations: dict[str, str] | None, address: str | None) -> dict[str, object]:
    return {
        "metadata": {"annotations": annotations, "labels": {"app.kubernetes.io/component": "agent"}},
        "status": {"podIP": address} if address else {},
    }


def test_pods_that_ask_for_it_and_have_an_address_are_scraped() -> None:
    found = targets([_pod(ASKS, "10.0.0.7"), _pod(None, "10.0.0.8"), _pod(ASKS, None)])
    assert found == [
        {"targets": ["10.0.0.7:9709"], "labels": {"__metrics_path__": "/metrics", "component": "agent"}},
    ]


def test_labels_of_the_training_are_kept() -> None:
    (job,) = yaml.safe_load(configuration([_pod(ASKS, "10.0.0.7")]))["scrape_configs"]
    assert job["honor_labels"] is True
