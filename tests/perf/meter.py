"""Runs a command and says what it took, as one line of JSON on standard output.

Wall time and CPU are those of the command and of all that it started and waited for. Memory is read from /proc every
10 ms: the high-water mark of each process (VmHWM, which ru_maxrss is not: that one is inherited across exec), and the
largest sum of resident sizes over the tree. Pages that forked processes share are counted once for each of them.
"""
import json
import os
import resource
import subprocess
import sys
import time


def tree(root):
    pids = [root]
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as children:
                    pids.extend(int(child) for child in children.read().split())
        except OSError:
            pass  # ended meanwhile
    return pids


def memory(pid):
    """(VmHWM, VmRSS) in bytes, zeros for a process that has just ended."""
    found = {"VmHWM": 0, "VmRSS": 0}
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                name = line.split(":", 1)[0]
                if name in found:
                    found[name] = int(line.split()[1]) * 1024
    except OSError:
        pass
    return found["VmHWM"], found["VmRSS"]


started = time.monotonic()
command = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
peaks = {}
whole = 0
while command.poll() is None:
    total = 0
    for pid in tree(command.pid):
        peak, resident = memory(pid)
        peaks[pid] = max(peaks.get(pid, 0), peak)
        total += resident
    whole = max(whole, total)
    time.sleep(0.01)
wall = time.monotonic() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(
    json.dumps(
        {
            "wall": wall,
            "cpu": used.ru_utime + used.ru_stime,
            "treeRss": whole,
            "processRss": max(peaks.values(), default=0),
        }
    )
)
sys.exit(command.returncode)
