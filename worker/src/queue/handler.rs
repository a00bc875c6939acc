use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use apalis_core::task::Task;
use muneem_jobs::queue::{Done, JobContext, JobFailure};
use tower::Service;
use tracing::Instrument;

use super::{Shared, inhand::InHand};

/// What a handler's future came to; panics come as the error of the spawned task.
#[derive(Debug)]
pub(super) enum Ended {
    /// It answered.
    Done(Done),
    /// It failed.
    Failed(JobFailure),
    /// It was stopped; the job in hand says why.
    Stopped,
    /// It had not begun when the process began to end.
    NotBegun,
    /// This program does not know the kind: a newer one does.
    UnknownKind,
}

/// The innermost service: waits for a place, then runs the kind's handler.
#[derive(Clone)]
pub(super) struct Handler {
    shared: Arc<Shared>,
}

impl Handler {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Service<Task<Arc<InHand>>> for Handler {
    type Response = Ended;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Ended, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Arc<InHand>>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        let in_hand = task.args;
        Box::pin(async move { Ok(run(&shared, &in_hand).await) })
    }
}

async fn run(shared: &Arc<Shared>, in_hand: &InHand) -> Ended {
    let claimed = &in_hand.claimed;
    let _place = tokio::select! {
        biased;
        () = in_hand.stop.cancelled() => return Ended::Stopped,
        () = shared.draining.cancelled() => return Ended::NotBegun,
        place = shared.capacity.acquire(claimed.lane) => place,
    };
    let Some(kind) = shared.kinds.get(claimed.kind.as_str()) else { return Ended::UnknownKind };
    // The opener hands over nothing sealed.
    let Some(payload) = in_hand.payload() else { return Ended::NotBegun };
    in_hand.begun.notify_one();
    // Whoever was just woken would wait on this very thread, unstealable, should the handler block it: let it run first.
    tokio::task::yield_now().await;
    let context = JobContext {
        deps: Arc::clone(&shared.deps),
        job: claimed.job,
        attempt: claimed.attempt,
        worker: in_hand.worker,
        business: claimed.business,
        cancelled: in_hand.stop.clone(),
        steps: Arc::clone(&shared.steps),
    };
    let span = tracing::info_span!("job", job = claimed.job.0, kind = kind.name, attempt = claimed.attempt);
    let begun = tokio::time::Instant::now();
    let ended = async {
        tokio::select! {
            biased;
            () = in_hand.stop.cancelled() => Ended::Stopped,
            answer = kind.run(payload, &context) => match answer {
                Ok(done) => Ended::Done(done),
                Err(failure) => Ended::Failed(failure),
            },
        }
    }
    .instrument(span)
    .await;
    metrics::histogram!("muneem_job_seconds", "kind" => kind.name).record(begun.elapsed().as_secs_f64());
    ended
}
