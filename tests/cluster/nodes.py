"""A Ray cluster of several nodes on this machine, for tests: ``python -m tests.cluster.nodes CPUS...``.

Prints the address, then kills the node whose number comes on stdin (0 is the head), and ends with stdin. All
processes of the cluster end with this one.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

MEMORY = 256 << 20


def main(cpus: list[int]) -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": cpus[0], "object_store_memory": MEMORY, "include_dashboard": False},
    )
    nodes = [cluster.head_node]
    nodes += [cluster.add_node(num_cpus=count, object_store_memory=MEMORY) for count in cpus[1:]]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        cluster.remove_node(nodes[int(line)], allow_graceful=False)
        print("gone", flush=True)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]])
