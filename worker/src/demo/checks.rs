//! Whether all of it happened: asked of the stand-in, of the database and of the files, not of our own memory.

use std::collections::{BTreeMap, HashMap};

use hayro_syntax::Pdf;
use serde::Deserialize;

use super::{
    Error,
    stage::Stage,
    watch::{self, Bill},
};

/// What the stand-in saw.
#[derive(Deserialize)]
struct Oracle {
    recipients: HashMap<String, Vec<Shown>>,
    posts: Posts,
}

#[derive(Deserialize)]
struct Shown {
    filename: Option<String>,
    displayed_at: Option<String>,
}

#[derive(Deserialize)]
struct Posts {
    by_ref: HashMap<String, u32>,
}

/// One thing that had to happen.
pub(super) struct Check {
    pub(super) holds: bool,
    pub(super) what: String,
}

/// All checks on the demo's own sales. `quiet`: the queue as it was found empty, if it was.
pub(super) async fn all(stage: &Stage, orders: &[i64], quiet: Option<watch::Queue>) -> Result<Vec<Check>, Error> {
    let bills = watch::bills(&stage.house, orders).await.map_err(Error::database("read the orders"))?;
    let oracle: Oracle = stage
        .client
        .get(format!("http://{}/sandbox/oracle", stage.sandbox_at))
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(Error::http("the stand-in what it saw"))?
        .json()
        .await
        .map_err(Error::http("the stand-in what it saw"))?;
    let queue = match quiet {
        Some(queue) => queue,
        None => watch::queue(&stage.house).await.map_err(Error::database("look at the queue"))?,
    };
    let sold = bills.len();
    let read = bills.iter().filter(|bill| bill.is_read()).count();
    let pages = readable(stage, &bills).await;
    let twice = oracle.posts.by_ref.values().filter(|posts| **posts != 1).count();
    let shown = shown_per_document(&oracle);
    let once = shown.len() == sold && shown.values().all(|times| *times == 1);
    Ok(vec![
        Check {
            holds: sold == orders.len() && read == sold,
            what: format!("{read} of {sold} invoices delivered and read, both stored"),
        },
        Check {
            holds: once && twice == 0,
            what: format!(
                "{} messages on the phones, each once; {} POSTs, each of a reference of its own",
                shown.values().sum::<usize>(),
                oracle.posts.by_ref.values().sum::<u32>(),
            ),
        },
        Check { holds: pages == sold, what: format!("{pages} PDFs read page by page") },
        Check { holds: gap_free(&bills), what: format!("numbers without a gap: {}", span(&bills)) },
        Check {
            holds: queue.waiting == 0 && queue.dead == 0,
            what: format!("{} jobs left, {} dead", queue.waiting, queue.dead),
        },
    ])
}

/// The kill itself: without a job in hand it would show nothing.
pub(super) async fn kill(stage: &Stage, jobs_in_hand: Option<i64>) -> Result<Check, Error> {
    let begun_again = watch::begun_again(&stage.house).await.map_err(Error::database("count what was begun again"))?;
    Ok(match jobs_in_hand {
        Some(jobs) => Check {
            holds: true,
            what: format!("a worker was killed with {jobs} in hand; {begun_again} begun again elsewhere"),
        },
        None => {
            Check { holds: false, what: "no worker was busy long enough to be killed with a job in hand".to_owned() }
        }
    })
}

/// How often each document was shown on each phone.
fn shown_per_document(oracle: &Oracle) -> BTreeMap<(&str, &str), usize> {
    let mut shown = BTreeMap::new();
    for (phone, chat) in &oracle.recipients {
        for message in chat.iter().filter(|message| message.displayed_at.is_some()) {
            *shown.entry((phone.as_str(), message.filename.as_deref().unwrap_or_default())).or_insert(0) += 1;
        }
    }
    shown
}

/// How many of the PDFs a reader can open that is not the program that wrote them.
async fn readable(stage: &Stage, bills: &[Bill]) -> usize {
    let mut readable = 0;
    for invoice in bills.iter().filter_map(|bill| bill.pdf_of) {
        let Ok(Some(bytes)) = stage.files.fetch(invoice).await else { continue };
        let has_pages = Pdf::new(bytes.to_vec()).is_ok_and(|pdf| {
            !pdf.pages().is_empty() && pdf.pages().iter().all(|page| page.typed_operations().next().is_some())
        });
        readable += usize::from(has_pages);
    }
    readable
}

/// The last part of a number: `42` of `SM/26-27/00042`.
fn serial(number: &str) -> Option<u64> {
    number.rsplit('/').next()?.parse().ok()
}

fn gap_free(bills: &[Bill]) -> bool {
    let mut serials = bills.iter().filter_map(|bill| serial(&bill.invoice_number)).collect::<Vec<_>>();
    serials.sort_unstable();
    serials.len() == bills.len() && serials.windows(2).all(|pair| pair[1] == pair[0] + 1) && serials.first() == Some(&1)
}

fn span(bills: &[Bill]) -> String {
    let mut numbers = bills.iter().map(|bill| bill.invoice_number.as_str()).collect::<Vec<_>>();
    numbers.sort_unstable();
    match (numbers.first(), numbers.last()) {
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use rust_decimal::Decimal;

    use super::*;

    fn bills(numbers: &[&str]) -> Vec<Bill> {
        let bill = |number: &&str| Bill {
            order_id: 1,
            invoice_number: (*number).to_owned(),
            total: Decimal::ONE,
            placed_at: DateTime::UNIX_EPOCH,
            received_at: None,
            issued_at: None,
            pdf_of: None,
            message: None,
            posted_at: None,
            posts: 0,
            delivered_at: None,
            read_at: None,
        };
        numbers.iter().map(bill).collect()
    }

    #[test]
    fn a_missing_number_is_a_gap_in_any_order() {
        assert!(gap_free(&bills(&["SM/26-27/00002", "SM/26-27/00001", "SM/26-27/00003"])));
        assert!(!gap_free(&bills(&["SM/26-27/00001", "SM/26-27/00003"])));
        assert!(!gap_free(&bills(&["SM/26-27/00001", "SM/26-27/00001"])));
        assert!(!gap_free(&bills(&["SM/26-27/00002"])));
    }
}
