use std::{sync::Arc, time::Duration};

use muneem_jobs::queue::work;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Shared, inhand::Stop};

/// Renews the lease, three times in its length. When it is lost, whatever it held stops, and a new incarnation begins;
/// when the database has not answered for a whole lease, what runs stops too: somebody else may be running it.
pub(super) async fn beat(shared: Arc<Shared>, stop: CancellationToken) {
    let lease = shared.settings.lease;
    let mut renewed = Instant::now();
    // Its jobs were told to stop although the database may still think them held: this incarnation is over.
    let mut given_up = false;
    loop {
        let pause = if renewed.elapsed() > lease / 2 { lease / 20 } else { lease / 3 };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        let worker = shared.hands.worker();
        let asked = Instant::now();
        match tokio::time::timeout(lease / 3, renew(&shared, worker, given_up)).await {
            Ok(Ok(Some(same))) if same == worker => {
                renewed = asked;
                shared.settings.pulse.renewed(asked, lease);
            }
            Ok(Ok(Some(new))) => {
                tracing::error!(worker, new, "the lease was lost; its jobs are somebody else's now");
                shared.hands.set_worker(new);
                shared.hands.stop_of(worker);
                renewed = asked;
                given_up = false;
                shared.settings.pulse.renewed(asked, lease);
                shared.want_tick();
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::warn!(worker, %error, "the lease could not be renewed yet"),
            Err(_) => tracing::warn!(worker, "the lease could not be renewed yet: no answer"),
        }
        if renewed.elapsed() > lease {
            given_up = true;
            shared.hands.stop_of(worker);
        }
    }
}

/// The incarnation that holds the lease now: the same, or a new one.
async fn renew(shared: &Shared, worker: i64, given_up: bool) -> Result<Option<i64>, muneem_jobs::queue::Error> {
    let lease = shared.settings.lease;
    let mut conn = shared.db.acquire().await.map_err(muneem_jobs::queue::Error::Database)?;
    if given_up {
        work::leave(&mut conn, worker).await?;
    } else if work::beat(&mut conn, worker, lease).await? {
        return Ok(Some(worker));
    }
    if shared.draining.is_cancelled() {
        shared.hands.stop_of(worker);
        return Ok(None);
    }
    work::join(&mut conn, &shared.settings.name, lease, shared.settings.concurrency).await.map(Some)
}

/// Stops running jobs that somebody cancelled: told by NOTIFY, and looking by itself now and then.
pub(super) async fn hear_cancellations(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = shared.cancel_wanted.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = stop.cancelled() => return,
        }
        let ids = shared.hands.ids();
        if ids.is_empty() {
            continue;
        }
        let Ok(mut conn) = shared.db.acquire().await else { continue };
        match work::cancel_requests(&mut conn, &ids).await {
            Ok(wanted) => {
                for in_hand in wanted.into_iter().filter_map(|job| shared.hands.find(job)) {
                    in_hand.stop(Stop::Cancelled);
                }
            }
            Err(error) => tracing::debug!(%error, "could not ask for cancellations"),
        }
    }
}

/// Hears NOTIFY on a connection of its own. Losing it costs latency, not jobs: the poll goes on.
pub(super) async fn listen(shared: Arc<Shared>, options: PgConnectOptions, stop: CancellationToken) {
    let mut pause = Duration::from_millis(100);
    loop {
        let heard = async {
            let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen("muneem_queue").await?;
            // What was committed while nobody listened.
            shared.want_tick();
            loop {
                let notification = listener.recv().await?;
                match notification.payload() {
                    "cancel" => shared.cancel_wanted.notify_one(),
                    "tick" => shared.want_tick(),
                    _lane => shared.wake.notify_one(),
                }
            }
        };
        let ended: Result<std::convert::Infallible, sqlx::Error> = tokio::select! {
            ended = heard => ended,
            () = stop.cancelled() => return,
        };
        let Err(error) = ended;
        tracing::warn!(%error, "not listening; polling until the connection is back");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
