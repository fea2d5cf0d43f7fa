"""What to leave out on a bad network."""

from support.badnet import leave_out
from support.fixtures import frozen  # noqa: F401

NOT_ON_A_BAD_NETWORK = {
    "a write is with the kernel when write() returns, or when the turn or the loop ends": (
        "test_pipes.test_buffered",
        "test_pipes.test_sent_at_once",
        "test_review_streams.test_shutdown_of_the_socket_after_a_write",
        "test_stream_api.test_methods_when_the_loop_is_closed",
        "test_stream_flow.test_bytes_leave_with_the_turn",
        "test_stream_flow.test_end_of_run_until_complete_right_after_write",
        "test_stream_flow.test_exception_that_leaves_the_loop_right_after_write",
        "test_stream_flow.test_large_writes_are_sent_at_once",
        "test_stream_flow.test_small_write_and_abort",
        "test_stream_flow.test_stop_right_after_write",
        "test_stream_flow.test_write_while_the_loop_does_not_run",
    ),
    "which write meets the peer's reset, or fills a buffer, or has to wait": (
        "test_pipes.test_limits",
        "test_pipes.test_repr",
        "test_pipes.test_write_to_one_who_has_gone",
        "test_stream_api.test_repr",
        "test_stream_flow.test_limit_zero",
        "test_stream_flow.test_pause_and_resume_exactly",
    ),
    "get_buffer() is called once for each buffer_updated(): a read that says EAGAIN has called it, too": (
        "test_buffered.test_get_buffer_ends_the_reading",
        "test_buffered.test_how_often_get_buffer_is_called",
        "test_buffered.test_python_exporter",
        "test_callback_matrix.test_buffered_callback_acts[get_buffer-",
        "test_callback_matrix.test_buffered_callback_raises[get_buffer-",
    ),
    "how often the loop goes round, or how much one read brings": (
        "test_callback_matrix.test_callback_always_raises[eof_received-KeyboardInterrupt]",
        "test_pipes.test_size_of_a_read",
        "test_review_others.test_a_pipe_of_messages",
    ),
    "epoll refuses a file that said EAGAIN": (
        "test_pipes.test_dev_null",
    ),
}


def pytest_collection_modifyitems(config, items):
    leave_out(__file__, NOT_ON_A_BAD_NETWORK, config, items)
