"""gossipy's logistic regression: every node sends its model to one of 20 neighbours a round (PUSH), merges and trains.

Run by the Python of an environment with gossipy-dfl: NODES ROUNDS ROWS EVALUATED. Prints one JSON object. EVALUATED:
the share of nodes examined after each round on TEST_ROWS rows (0: none); gossipy's own scripts have 0.1.
"""

from __future__ import annotations

import json
import sys
import time

import networkx
import torch
from gossipy import set_seed
from gossipy.core import AntiEntropyProtocol, ConstantDelay, CreateModelMode, StaticP2PNetwork
from gossipy.data import DataDispatcher
from gossipy.data.handler import ClassificationDataHandler
from gossipy.model.handler import TorchModelHandler
from gossipy.model.nn import LogisticRegression
from gossipy.node import GossipNode
from gossipy.simul import GossipSimulator

FEATURES, DEGREE, TEST_ROWS = 57, 20, 460
nodes, rounds, rows, evaluated = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
torch.set_num_threads(1)
set_seed(42)
test = TEST_ROWS if evaluated else 0
x = torch.randn(nodes * rows + test, FEATURES)
y = (x[:, 0] > 0).long()
data = ClassificationDataHandler(x, y, test_size=test / len(x))
dispatcher = DataDispatcher(data, n=nodes, eval_on_user=False, auto_assign=True)
graph = networkx.to_numpy_array(networkx.random_regular_graph(DEGREE, nodes, seed=42))
handler = TorchModelHandler(
    net=LogisticRegression(FEATURES, 2),
    optimizer=torch.optim.SGD,
    optimizer_params={"lr": 0.1},
    criterion=torch.nn.CrossEntropyLoss(),
    create_model_mode=CreateModelMode.MERGE_UPDATE,
    batch_size=32,
    local_epochs=1,
)
simulator = GossipSimulator(
    nodes=GossipNode.generate(
        data_dispatcher=dispatcher,
        p2p_net=StaticP2PNetwork(nodes, topology=graph),
        model_proto=handler,
        round_len=100,
        sync=True,
    ),
    data_dispatcher=dispatcher,
    delta=100,
    protocol=AntiEntropyProtocol.PUSH,
    delay=ConstantDelay(0),
    sampling_eval=evaluated,
)
simulator.init_nodes(seed=42)
began, cpu = time.perf_counter(), time.process_time()
simulator.start(n_rounds=rounds)
print(json.dumps({"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}))
