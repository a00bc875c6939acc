//! `muneem demo`: a sample shop sells, its customers hold their invoices on WhatsApp, and a worker is killed on the way.
//!
//! Everything is real but the carrier: a private Postgres, the binary's own processes, PDFs, signed webhooks. The shop
//! knows only its own tables, `muneem.invoice_next_number` and `muneem.enqueue`. In the end the stand-in, the database
//! and the files are asked whether all of it happened.

mod checks;
mod error;
mod house;
mod page;
mod shop;
mod stage;
mod story;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use error::Error;
pub use story::Say;

use secrecy::ExposeSecret;
use shop::{Sold, cart_of};
use stage::{LEASE_SECS, Stage};
use story::{Story, until};
use tokio::signal::unix::{SignalKind, signal};
use watch::Bill;

/// Sales of the batch during which a worker is killed.
const BATCH: i32 = 12;
/// How long the messages of a sale may take until they are read; the lease of a killed worker runs out within.
const READ_WITHIN: Duration = Duration::from_secs(45);

/// How the demo runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its own directory; the Postgres in it is kept between runs, its content is not.
    pub dir: PathBuf,
    /// End after the story instead of serving until Ctrl-C.
    pub exit: bool,
}

/// Plays the demo. `true`: all of it happened.
///
/// # Errors
/// Something could not be started or asked; each error says what.
pub async fn run(options: &Options, say: Arc<Say>) -> Result<bool, Error> {
    let story = Story::new(&*say);
    story.now("Setting up: a private Postgres, the stand-in for WhatsApp, the API, two workers");
    let mut stage = Stage::set(&options.dir, Arc::clone(&say)).await?;
    let outcome = play(&mut stage, &story).await;
    if let Ok(played) = &outcome
        && !options.exit
    {
        links(&stage, &story, played);
        serve(&mut stage, &story).await;
    }
    story.now("Ending the processes");
    stage.clear().await;
    outcome.map(|played| played.held)
}

/// What there is to look at afterwards.
struct Played {
    held: bool,
    first: Sold,
}

/// The story: one sale to look at, a batch with a kill in the middle, and the checks.
async fn play(stage: &mut Stage, story: &Story<'_>) -> Result<Played, Error> {
    story.now(&format!("Ready. The shop's checkout is on http://{}/", stage.shop_at));
    let cart = cart_of(&stage.frontend, 1, &[(1, 1), (16, 1)]).await.map_err(Error::database("find a customer"))?;
    let first = shop::sell(&stage.frontend, &cart).await?;
    story.at(
        first.placed_at,
        &format!(
            "{} buys a phone and a tempered glass for ₹{}: order {}, payment and job {} in one transaction",
            cart.name,
            page::rupees(first.total),
            first.order,
            first.job,
        ),
    );
    let delivered =
        wait_for(stage, &[first.order], |bills| bills.iter().all(|bill| bill.delivered_at.is_some())).await?;
    if let Some(bill) = delivered.first() {
        tell(story, bill);
    }

    let (orders, killed) = batch_with_a_kill(stage, story).await?;
    let orders = std::iter::once(first.order).chain(orders).collect::<Vec<_>>();
    let bills = wait_for(stage, &orders, |bills| bills.iter().all(Bill::is_read)).await?;
    if let Some(read) = bills.iter().filter_map(|bill| bill.read_at).max() {
        story.at(read, "The last of the invoices is read");
    }
    // A finished job leaves the queue a moment after its last effect. Empty once is enough: a look at what became of an
    // attempt may fall due at any later moment.
    let quiet = async || watch::queue(&stage.house).await.map(|queue| (queue.waiting == 0).then_some(queue));
    let quiet = until(Duration::from_secs(15), quiet).await.map_err(Error::database("look at the queue"))?;

    let mut checks = checks::all(stage, &orders, quiet).await?;
    checks.push(checks::kill(stage, killed).await?);
    story.line("");
    for check in &checks {
        story.line(&format!("{}  {}", if check.holds { "held   " } else { "NOT HELD" }, check.what));
    }
    Ok(Played { held: checks.iter().all(|check| check.holds), first })
}

/// Sells to a dozen customers, and kills a worker process while it has some of them in hand.
/// The orders, and how many jobs the worker had in hand.
async fn batch_with_a_kill(stage: &mut Stage, story: &Story<'_>) -> Result<(Vec<i64>, Option<i64>), Error> {
    let mut sold: Vec<Sold> = Vec::new();
    let mut victim = None;
    for customer in 2..2 + BATCH {
        let items = [(customer % 7 + 1, 1), (8 + customer % 11, 1)];
        let cart = cart_of(&stage.frontend, customer, &items).await.map_err(Error::database("find a customer"))?;
        sold.push(shop::sell(&stage.frontend, &cart).await?);
        if victim.is_none() && sold.len() >= 4 {
            victim = kill_who_is_busy(stage, story, Duration::from_millis(150)).await?;
        }
    }
    if let (Some(first), Some(last)) = (sold.first(), sold.last()) {
        story.at(
            last.placed_at,
            &format!("{} more sales, {} to {}", sold.len(), first.invoice_number, last.invoice_number),
        );
    }
    if victim.is_none() {
        victim = kill_who_is_busy(stage, story, Duration::from_secs(2)).await?;
    }
    // As a supervisor would.
    stage.add_worker()?;
    Ok((sold.into_iter().map(|sold| sold.order).collect(), victim))
}

/// Waits until a worker has jobs in hand, and kills it with them. How many, if one was busy in time.
async fn kill_who_is_busy(stage: &mut Stage, story: &Story<'_>, within: Duration) -> Result<Option<i64>, Error> {
    let found = until(within, async || {
        for (index, worker) in stage.workers.iter().enumerate() {
            let jobs = watch::jobs_in_hand(&stage.house, worker.id()).await?;
            if jobs > 0 {
                return Ok(Some((index, jobs)));
            }
        }
        Ok::<_, sqlx::Error>(None)
    });
    let Some((index, jobs)) = found.await.map_err(Error::database("see who works"))? else { return Ok(None) };
    let mut victim = stage.workers.remove(index);
    let id = victim.id();
    victim.kill().await;
    story.now(&format!(
        "kill -9 {id}: a worker dies with {jobs} {} in hand; its lease runs out in {LEASE_SECS} s",
        if jobs == 1 { "job" } else { "jobs" },
    ));
    Ok(Some(jobs))
}

async fn wait_for(stage: &mut Stage, orders: &[i64], enough: impl Fn(&[Bill]) -> bool) -> Result<Vec<Bill>, Error> {
    let house = stage.house.clone();
    until(READ_WITHIN, async || {
        stage.check()?;
        let bills = watch::bills(&house, orders).await.map_err(Error::database("read the orders"))?;
        Ok::<_, Error>((bills.len() == orders.len() && enough(&bills)).then_some(()))
    })
    .await?;
    watch::bills(&house, orders).await.map_err(Error::database("read the orders"))
}

/// One order's way, step by step.
fn tell(story: &Story<'_>, bill: &Bill) {
    let steps = [
        (bill.received_at, format!("The invoice {} is checked and recorded", bill.invoice_number)),
        (bill.issued_at, "Its PDF is made".to_owned()),
        (bill.posted_at, "It is posted to WhatsApp; the attempt was committed before".to_owned()),
        (bill.delivered_at, "A signed webhook says: delivered".to_owned()),
    ];
    for (at, what) in steps {
        match at {
            Some(at) => story.at(at, &what),
            None => story.line(&format!("(not yet)     {what}")),
        }
    }
}

fn links(stage: &Stage, story: &Story<'_>, played: &Played) {
    let (api, shop, sandbox) = (stage.api_at, stage.shop_at, stage.sandbox_at);
    story.line("");
    story.line(if played.held { "All of it happened. Look around:" } else { "Not all of it happened. Look around:" });
    story.line(&format!("  her phone      http://{sandbox}/sandbox"));
    story.line(&format!("  checkout       http://{shop}/"));
    story.line(&format!("  an invoice     http://{shop}/orders/{}/invoice.pdf", played.first.order));
    if let Some(link) = stage.owners_link() {
        story.line(&format!("  the console    {link}"));
        story.line("                 (become the shop's owner; the codes and alerts come to the stand-in's mails)");
    }
    story.line(&format!(
        "  its job, JSON  curl -H 'Authorization: Bearer {}' http://{api}/v1/queue/jobs/{}",
        stage.token.expose_secret(),
        played.first.job,
    ));
    story.line(&format!("  API, readable  http://{api}/docs"));
    story.line(&format!("  metrics        http://{api}/metrics"));
    story.line(&format!("  logs           {}", stage.logs().display()));
    story.line("Sell one yourself:");
    story.line(&format!("  curl -d 'name=Meera Patil' -d 'phone=917000000003' -d 'product=3' http://{shop}/buy"));
    story.line("Ctrl-C ends it.");
}

/// Serves until Ctrl-C or SIGTERM, or until one of the processes ends by itself.
async fn serve(stage: &mut Stage, story: &Story<'_>) {
    let mut look = tokio::time::interval(Duration::from_secs(1));
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut asked) => asked.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::pin!(terminated);
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return,
            _ = &mut terminated => return,
            _ = look.tick() => if let Err(error) = stage.check() {
                story.line(&error.to_string());
                return;
            },
        }
    }
}
