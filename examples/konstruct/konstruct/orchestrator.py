"""The orchestrator: tasks that run in the worker, under the tenant that published them."""

from __future__ import annotations

from celery import Celery

from konstruct import memory_short
from konstruct.replies import LocalReplies, ReplyGenerator
from konstruct.settings import settings
from tenantry.integrations.celery import install

app = Celery("konstruct", broker=settings.broker_url, backend=settings.redis_url)
app.conf.update(
    task_default_queue="konstruct",
    result_expires=300,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
install(app)

replies: ReplyGenerator = LocalReplies()


@app.task(name="konstruct.respond")
def respond(agent_id: str, user_id: str, text: str) -> str:
    """Remember what the user wrote, answer from the window, remember the answer."""
    memory_short.append_message(agent_id, user_id, "user", text)
    answer = replies.reply(memory_short.get_recent_messages(agent_id, user_id))
    memory_short.append_message(agent_id, user_id, "assistant", answer)
    return answer
