"""The stages of dvc.yaml, one file each: read params, call the library, write the outputs."""

from nodules.system.environment import check_environment
from nodules.system.exits import exit_in_one_line_at_import
from nodules.system.git import check_commit
from nodules.system.signals import end_with_dvc, exit_on_signals
from nodules.system.streams import prepare_streams

prepare_streams()
exit_in_one_line_at_import()
check_environment()
check_commit()
# Must precede the import of TensorFlow, which takes seconds.
exit_on_signals()
end_with_dvc()
