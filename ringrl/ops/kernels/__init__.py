"""Local kernels, behind one interface: each computes attention of some queries to some keys."""

from ringrl.ops.kernels.choice import KERNELS as KERNELS
from ringrl.ops.kernels.choice import choose_kernel as choose_kernel
from ringrl.ops.kernels.choice import computing_device as computing_device
from ringrl.ops.kernels.interface import Gradients as Gradients
from ringrl.ops.kernels.interface import LocalKernel as LocalKernel
from ringrl.ops.kernels.interface import Logsumexp as Logsumexp
from ringrl.ops.kernels.interface import Part as Part
from ringrl.ops.kernels.interface import Rows as Rows
from ringrl.ops.kernels.interface import join as join
from ringrl.ops.kernels.interface import no_keys as no_keys
