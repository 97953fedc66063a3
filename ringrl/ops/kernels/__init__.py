"""Who computes a local block, behind one signature: forward gives output and logsumexp, backward is given them."""

from ringrl.ops.kernels.choice import choose_kernel as choose_kernel
from ringrl.ops.kernels.choice import computing_device as computing_device
from ringrl.ops.kernels.interface import DropoutKeys as DropoutKeys
from ringrl.ops.kernels.interface import Labels as Labels
from ringrl.ops.kernels.interface import LocalOptions as LocalOptions
from ringrl.ops.kernels.interface import Logsumexp as Logsumexp
from ringrl.ops.kernels.interface import join as join
from ringrl.ops.kernels.interface import no_keys as no_keys
from ringrl.ops.kernels.local import backward_part as backward_part
from ringrl.ops.kernels.local import forward_part as forward_part
