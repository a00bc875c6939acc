//! What has become of the shop's orders, read from the tables as an operator would.

use std::net::SocketAddr;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use uuid::Uuid;

/// The PDFs, as any frontend fetches them: they lie sealed, and the API opens them for its token.
#[derive(Clone)]
pub(super) struct Pdfs {
    client: reqwest::Client,
    api: SocketAddr,
    token: SecretString,
}

impl Pdfs {
    pub(super) fn new(client: reqwest::Client, api: SocketAddr, token: SecretString) -> Self {
        Self { client, api, token }
    }

    /// Nothing while there is none.
    pub(super) async fn fetch(&self, invoice: Uuid) -> reqwest::Result<Option<Bytes>> {
        let url = format!("http://{}/v1/invoice/invoices/{invoice}/pdf", self.api);
        let answer = self.client.get(url).bearer_auth(self.token.expose_secret()).send().await?;
        if answer.status() == http::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.error_for_status()?.bytes().await.map(Some)
    }
}

/// One order on its way to the customer's phone.
#[derive(Clone, Debug, PartialEq, serde::Serialize, sqlx::FromRow)]
pub(super) struct Bill {
    pub(super) order_id: i64,
    pub(super) invoice_number: String,
    pub(super) total: Decimal,
    pub(super) placed_at: DateTime<Utc>,
    /// Checked and recorded.
    pub(super) received_at: Option<DateTime<Utc>>,
    /// The PDF exists.
    pub(super) issued_at: Option<DateTime<Utc>>,
    /// The invoice whose PDF it is.
    pub(super) pdf_of: Option<Uuid>,
    /// State in the message ledger.
    pub(super) message: Option<String>,
    /// The first POST to the carrier began.
    pub(super) posted_at: Option<DateTime<Utc>>,
    /// POSTs made, by our own account.
    pub(super) posts: i64,
    pub(super) delivered_at: Option<DateTime<Utc>>,
    pub(super) read_at: Option<DateTime<Utc>>,
}

impl Bill {
    /// Delivered and read, both stored.
    pub(super) fn is_read(&self) -> bool {
        self.delivered_at.is_some() && self.read_at.is_some()
    }
}

/// The billed orders as they stand, in the order of their numbers.
pub(super) async fn bills(house: &PgPool, orders: &[i64]) -> sqlx::Result<Vec<Bill>> {
    sqlx::query_as(
        "select o.order_id, o.invoice_number, o.total, o.placed_at, i.received_at, i.issued_at,
            case when i.pdf_digest is not null then i.invoice_id end as pdf_of,
            m.state as message, a.posted_at, coalesce(a.posts, 0) as posts, a.delivered_at, a.read_at
         from shop.orders o
         left join muneem.invoice_invoices i on i.number = o.invoice_number
         left join muneem.messaging_messages m on m.document_digest = i.pdf_digest
         left join lateral (
             select min(t.started_at) as posted_at, count(distinct t.number) as posts,
                 min(e.received_at) filter (where e.status = 'delivered') as delivered_at,
                 min(e.received_at) filter (where e.status = 'read') as read_at
             from muneem.messaging_attempts t
             left join muneem.messaging_events e on e.ref = t.ref
             where t.message_id = m.message_id
         ) a on true
         where o.order_id = any ($1)
             and o.invoice_number is not null
         order by o.order_id",
    )
    .bind(orders)
    .fetch_all(house)
    .await
}

/// A worker process by the name it joined with, and how many jobs it holds.
pub(super) async fn jobs_in_hand(house: &PgPool, process_id: u32) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "select count(*)
         from muneem.queue_jobs j
         join muneem.queue_workers w on w.worker_id = j.claimed_by
         where w.name like '%-' || $1",
    )
    .bind(process_id.to_string())
    .fetch_one(house)
    .await
}

/// What stands between the shop and an empty queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Queue {
    pub(super) waiting: i64,
    pub(super) dead: i64,
}

pub(super) async fn queue(house: &PgPool) -> sqlx::Result<Queue> {
    sqlx::query_as(
        "select (select count(*) from muneem.queue_jobs where kind ~ $1 and run_at <= muneem.now()) as waiting,
            (select count(*) from muneem.queue_dead where kind ~ $1) as dead",
    )
    // The house sweeps up by schedule too; that is no part of the story.
    .bind("^(invoice|messaging)[.]")
    .fetch_one(house)
    .await
}

/// Attempts of jobs that were begun again because their worker died.
pub(super) async fn begun_again(house: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "select (select count(*) from muneem.queue_history where attempt > 1)
            + (select count(*) from muneem.queue_jobs where attempt > 1 or crashes > 0)",
    )
    .fetch_one(house)
    .await
}
