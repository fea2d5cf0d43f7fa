"""What to leave out on a bad network."""

from support.badnet import leave_out
from support.fixtures import frozen  # noqa: F401

NOT_ON_A_BAD_NETWORK = {
    "which write fills a buffer, and how soon there is room again": (
        "test_callbacks.test_buffered_callback_acts[buffer_updated-write much",
        "test_callbacks.test_buffered_callback_acts[get_buffer-write much",
        "test_callbacks.test_callback_acts[connection_made-write much",
        "test_callbacks.test_callback_acts[data_received-write much",
        "test_callbacks.test_callback_acts[eof_received-write much",
        "test_callbacks.test_callback_acts[pause_writing-",
        "test_callbacks.test_callback_acts[resume_writing-",
        "test_callbacks.test_callback_acts_in_other_settings[FIN-pause_writing-",
        "test_callbacks.test_callback_acts_in_other_settings[client-pause_writing-",
        "test_callbacks.test_callback_acts_in_other_settings[upgrade-pause_writing-",
        "test_callbacks.test_callback_raises[pause_writing-",
        "test_callbacks.test_callback_raises_in_other_settings[FIN-pause_writing-",
        "test_callbacks.test_callback_raises_in_other_settings[client-pause_writing-",
        "test_callbacks.test_callback_raises_in_other_settings[upgrade-pause_writing-",
        "test_flow.test_pause_and_resume",
    ),
    "how often the loop goes round": (
        "test_calls.test_cancelled_drain",
    ),
    "which of a connection's failures is found first, and by whom": (
        "test_calls.test_odd_server_hostnames",
        "test_handshake.test_contextvars_of_callbacks",
    ),
    "what the kernel did not take before the end is lost": (
        "test_handshake.test_alert_of_a_refusal_reaches_the_peer",
    ),
}


def pytest_collection_modifyitems(config, items):
    leave_out(__file__, NOT_ON_A_BAD_NETWORK, config, items)
