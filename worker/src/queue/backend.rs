use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    error::BoxDynError,
    task::Task,
    worker::context::WorkerContext,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tower::{Layer, Service};

use super::{
    Shared,
    acker::Outcome,
    handler::Ended,
    inhand::{InHand, Stop},
};

/// apalis' backend for one lane: hands over what the claimer claimed. It never errs and never waits for the database;
/// the claimer, the acker and the beat do.
pub(super) struct LaneQueue {
    // apalis rebuilds a worker by calling its factory again, so the receiver outlives it.
    claimed: Arc<Mutex<UnboundedReceiver<Arc<InHand>>>>,
    shared: Arc<Shared>,
}

impl LaneQueue {
    pub(super) fn new(claimed: Arc<Mutex<UnboundedReceiver<Arc<InHand>>>>, shared: Arc<Shared>) -> Self {
        Self { claimed, shared }
    }
}

impl Backend for LaneQueue {
    type Task = Task<Arc<InHand>>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Infallible>>> {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.poll_recv(cx).map(|next| next.map(|in_hand| Ok(Task::new(in_hand))))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        // The claimer drops its end when draining begins; until then, what still arrives goes back unbegun.
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match claimed.poll_recv(cx) {
                Poll::Ready(Some(in_hand)) => self.shared.settle(&in_hand, Outcome::release(&in_hand)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl BackendConfig for LaneQueue {
    type Args = Arc<InHand>;
    type Id = i64;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = OutcomeLayer;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> OutcomeLayer {
        OutcomeLayer { shared: Arc::clone(&self.shared) }
    }
}

/// The outermost layer: watches the time, and turns whatever becomes of a job (an answer, an error, a panic, a stop)
/// into its one outcome.
#[derive(Clone)]
pub(super) struct OutcomeLayer {
    shared: Arc<Shared>,
}

impl<S> Layer<S> for OutcomeLayer {
    type Service = OutcomeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OutcomeService { inner, shared: Arc::clone(&self.shared) }
    }
}

pub(super) struct OutcomeService<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// After the order to stop, a handler that yields is gone at once; one that blocks its thread is not waited for longer.
const STOP_GRACE: Duration = Duration::from_secs(1);

impl<S> Service<Task<Arc<InHand>>> for OutcomeService<S>
where
    S: Service<Task<Arc<InHand>>, Response = Ended>,
    S::Error: Into<BoxDynError> + Send,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxDynError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<Arc<InHand>>) -> Self::Future {
        let in_hand = Arc::clone(&task.args);
        let shared = Arc::clone(&self.shared);
        let timeout = shared.kinds.get(in_hand.claimed.kind.as_str()).map(|kind| kind.settings.timeout);
        let answer = self.inner.call(task);
        Box::pin(async move {
            let watch = async {
                in_hand.begun.notified().await;
                match timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => std::future::pending().await,
                }
                in_hand.stop(Stop::TimedOut);
            };
            let stopped = async {
                tokio::select! {
                    () = in_hand.stop.cancelled() => {}
                    () = watch => {}
                }
                tokio::time::sleep(STOP_GRACE).await;
            };
            let ended = tokio::select! {
                biased;
                answer = answer => answer.map_err(Into::into),
                () = stopped => Ok(Ended::Stopped),
            };
            let outcome = Outcome::of(&shared, &in_hand, ended);
            shared.settle(&in_hand, outcome);
            Ok(())
        })
    }
}

impl Shared {
    /// The job has its outcome: out of hand, and on to the acker.
    pub(super) fn settle(&self, in_hand: &Arc<InHand>, outcome: Outcome) {
        // The acker lives as long as anything is in hand.
        let _ = self.outcomes.send(outcome);
        self.hands.settle(in_hand);
        self.wake.notify_one();
    }
}
