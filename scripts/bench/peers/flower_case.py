"""Flower's simulation: clients that train a logistic regression in NumPy on rows of their own, FedAvg, all in a round.

Run by the Python of an environment with flwr[simulation]: CLIENTS ROUNDS ROWS STEPS. Prints one JSON object; the time
is that of the rounds, from the first model sent to the last one averaged, without the start of Ray.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.common import Context, ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

FEATURES, BATCH = 57, 32
clients, rounds, rows, steps = (int(each) for each in sys.argv[1:5])
began: list[float] = []
ended: list[float] = []


class Client(NumPyClient):
    def __init__(self, number: int) -> None:
        self.rng = np.random.default_rng(number)
        self.x = self.rng.normal(size=(rows, FEATURES)).astype(np.float32)
        self.y = (self.x[:, 0] > 0).astype(np.int64)

    def fit(self, parameters, config):
        w, b = (np.array(each) for each in parameters)
        for _ in range(steps):
            at = self.rng.choice(rows, min(rows, BATCH), replace=False)
            x, y = self.x[at], self.y[at]
            scores = x @ w + b
            p = np.exp(scores - scores.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(y)), y] -= 1.0
            w -= np.float32(0.1) * (x.T @ p / len(y)).astype(np.float32)
            b -= np.float32(0.1) * p.mean(0).astype(np.float32)
        return [w, b], rows, {}


class Timed(FedAvg):
    def configure_fit(self, *args, **kwargs):
        began.append(time.perf_counter())
        return super().configure_fit(*args, **kwargs)

    def aggregate_fit(self, *args, **kwargs):
        found = super().aggregate_fit(*args, **kwargs)
        ended.append(time.perf_counter())
        return found


def client(context: Context):
    return Client(int(context.node_config["partition-id"])).to_client()


def server(context: Context) -> ServerAppComponents:
    start = [np.zeros((FEATURES, 2), np.float32), np.zeros(2, np.float32)]
    strategy = Timed(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters(start),
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))


run_simulation(ServerApp(server_fn=server), ClientApp(client_fn=client), num_supernodes=clients)
print(json.dumps({"wall_s": ended[-1] - began[0], "rounds": len(ended)}))
