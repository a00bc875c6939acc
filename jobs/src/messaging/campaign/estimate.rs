//! What a campaign would cost and how long it would take, before it costs anything.
//!
//! Everybody who waits is judged as she would be when her message went, some thousands at a time, so that a million take
//! no more memory than one part. What the estimate takes for granted stands in its answer.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::{Decimal, RoundingStrategy};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Campaign, CampaignId, rates::card, store};
use crate::{
    evidence::By,
    law::india_date,
    messaging::{
        Category, Error, Language, sealed,
        template::{self, Known},
        wishes::{self, Channel, Contact, Question, Verdict},
    },
    people::BusinessId,
    vault::Vault,
};

/// People judged with one statement.
const PART: i64 = 2000;
/// How long after somebody wrote a message to her begins nothing (Cloud API, customer service window), and over which the
/// carrier counts whom a portfolio writes to first (Cloud API, messaging limits).
const DAY: TimeDelta = TimeDelta::hours(24);

/// What a campaign would cost and take from now on: of the people who wait in it.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    /// Which.
    pub campaign_id: CampaignId,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// Messages that wait.
    pub people: u64,
    /// Those that may go now.
    pub allowed: u64,
    /// Those that may not, by reason ([`wishes::Reason`]).
    pub refused: BTreeMap<&'static str, u64>,
    /// Of the allowed: who wrote within the last 24 hours.
    pub in_window: u64,
    /// What the allowed cost.
    pub cost: Cost,
    /// How long they take.
    pub time: Time,
    /// What this takes for granted, in sentences.
    pub assumptions: Vec<String>,
}

/// Money, exact: rupees as decimals, never floats.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// ISO 4217.
    pub currency: String,
    /// One line for each rate.
    pub lines: Vec<CostLine>,
    /// Messages to countries whose rates are not known here, not counted below.
    pub unpriced: u64,
    /// Sum of the lines.
    pub net: Decimal,
    /// Tax on it in percent.
    pub tax_percent: Decimal,
    /// The tax, rounded to paise.
    pub tax: Decimal,
    /// Both, rounded to paise.
    pub total: Decimal,
}

/// What is charged at one rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CostLine {
    /// `MARKETING`, `UTILITY` or `AUTHENTICATION`: the carrier's category of the template, as far as is known.
    pub category: &'static str,
    /// Whether the recipients wrote within the last 24 hours, where the rate card tells that apart.
    pub in_window: bool,
    /// How many.
    pub messages: u64,
    /// For each.
    pub per_message: Decimal,
    /// For all.
    pub amount: Decimal,
}

/// How long it takes, by each of the carrier's limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Time {
    /// What the number sends in a second.
    pub messages_per_second: i32,
    /// How long the number is busy, in seconds, if it does nothing else.
    pub throughput_secs: u64,
    /// People that the portfolio may write to first in any 24 hours; none: no limit, or none known.
    pub daily_recipients: Option<i32>,
    /// People who count against that now.
    pub reached: u64,
    /// People of the campaign who would count: neither written to nor heard from within 24 hours.
    pub new_recipients: u64,
    /// Days to wait beyond today because of that limit.
    pub further_days: u64,
    /// Whether it ends before the campaign expires.
    pub ends_in_time: bool,
}

/// What is counted of the people who wait.
#[derive(Default)]
struct Counted {
    people: u64,
    allowed: u64,
    refused: BTreeMap<&'static str, u64>,
    in_window: u64,
    new_recipients: u64,
    abroad: u64,
    /// By category, and whether the window makes a difference to it.
    priced: BTreeMap<(&'static str, bool), (Category, u64)>,
}

/// Estimates what is left of a campaign, in the caller's transaction. That people were asked about is on record, as with
/// every check: a campaign of one says whether she may be written to.
///
/// # Errors
/// [`Error::NoSuchCampaign`]; [`Error::CampaignOver`]; the vault is sealed, or the database fails.
pub async fn estimate(
    tx: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, CampaignId),
    by: &By<'_>,
) -> Result<Estimate, Error> {
    let campaign = store::find(tx, Some(business), id).await?.ok_or(Error::NoSuchCampaign)?;
    if campaign.ended_at.is_some() {
        return Err(Error::CampaignOver);
    }
    let line = store::load_line(tx, (business, &campaign.phone_number_id), by.now - DAY).await?;
    let known = template::list_known(tx, business).await?;
    let counted = count(tx, vault, (&campaign, &line, &known), by.now).await?;
    let refused = counted.people - counted.allowed;
    let asked = |many: u64| usize::try_from(many).unwrap_or(usize::MAX);
    wishes::note_checked(tx, by, business, (asked(counted.people), asked(refused))).await?;
    let cost = cost_of(&counted, by.now);
    let time = time_of(&counted, &line, (by.now, campaign.expires_at));
    let assumptions = assumptions(&counted, &cost, &time, by.now);
    Ok(Estimate {
        campaign_id: id,
        at: by.now,
        people: counted.people,
        allowed: counted.allowed,
        refused: counted.refused,
        in_window: counted.in_window,
        cost,
        time,
        assumptions,
    })
}

async fn count(
    tx: &mut PgConnection,
    vault: &Vault,
    (campaign, line, known): (&Campaign, &store::Line, &[Known]),
    now: DateTime<Utc>,
) -> Result<Counted, Error> {
    let question = Question {
        class: campaign.class.into(),
        purpose: &campaign.purpose,
        channel: Channel::Whatsapp,
        // As when it is sent.
        last_way: true,
    };
    let mut categories = HashMap::new();
    let mut counted = Counted::default();
    let mut after = Uuid::nil();
    loop {
        let part = store::list_queued(tx, campaign.campaign_id, after, PART).await?;
        let Some(last) = part.last() else { return Ok(counted) };
        after = last.message_id.0;
        let mut contacts = Vec::with_capacity(part.len());
        for person in &part {
            let of = (campaign.business_id, person.message_id);
            contacts.push(Contact::Phone(sealed::open_phone(tx, vault, of, &person.to_sealed).await?));
        }
        let verdicts = wishes::judge_all(tx, vault, campaign.business_id, (&contacts, question), now).await?;
        let marks: Vec<_> = part.iter().filter_map(|person| person.to_mark.clone()).collect();
        let pairs = store::list_touched(tx, &campaign.phone_number_id, &marks, now - DAY).await?;
        let heard: HashSet<_> = pairs.iter().filter(|pair| pair.heard).map(|pair| &pair.mark).collect();
        let reached: HashSet<_> = pairs.iter().map(|pair| &pair.mark).collect();
        for ((person, contact), verdict) in part.iter().zip(&contacts).zip(verdicts) {
            counted.people += 1;
            if let Verdict::Skipped(reason) = verdict {
                *counted.refused.entry(reason.as_str()).or_default() += 1;
                continue;
            }
            counted.allowed += 1;
            let mark = person.to_mark.as_ref();
            let in_window = mark.is_some_and(|mark| heard.contains(mark));
            counted.in_window += u64::from(in_window);
            counted.new_recipients += u64::from(!mark.is_some_and(|mark| reached.contains(mark)));
            let at_home = matches!(contact, Contact::Phone(phone) if phone.digits().starts_with(&card().calling_code));
            let category = *categories
                .entry(person.language.clone())
                .or_insert_with(|| category_of((&campaign.template, &person.language), &line.waba_id, known));
            match category {
                Some(category) if at_home => {
                    let apart = in_window && card().has_window(category);
                    counted.priced.entry((category.as_str(), apart)).or_insert((category, 0)).1 += 1;
                }
                _ => counted.abroad += 1,
            }
        }
    }
}

/// What the carrier charges the words of a folder as: its own word for them where it has told, else the file's.
fn category_of((folder, language): (&str, &str), waba_id: &str, known: &[Known]) -> Option<Category> {
    let words = template::library().find(folder, Language::of(language))?;
    let there =
        known.iter().find(|one| one.waba_id == waba_id && one.name == words.name && one.language == words.language);
    let told = there.and_then(|one| one.category.as_deref());
    let categories = [Category::Marketing, Category::Utility, Category::Authentication];
    let told = told.and_then(|told| categories.into_iter().find(|category| category.as_str() == told));
    Some(told.unwrap_or(words.category))
}

fn cost_of(counted: &Counted, now: DateTime<Utc>) -> Cost {
    let (card, today) = (card(), india_date(now));
    let mut lines = Vec::new();
    let mut unpriced = counted.abroad;
    for ((word, in_window), (category, messages)) in &counted.priced {
        match card.rate(*category, *in_window, today) {
            Some(rate) => lines.push(CostLine {
                category: word,
                in_window: *in_window,
                messages: *messages,
                per_message: rate.per_message,
                amount: rate.per_message * Decimal::from(*messages),
            }),
            None => unpriced += messages,
        }
    }
    let net: Decimal = lines.iter().map(|line| line.amount).sum();
    let tax_percent = card.tax_percent(today);
    let in_paise = |amount: Decimal| amount.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
    let tax = net * tax_percent / Decimal::ONE_HUNDRED;
    Cost {
        currency: card.currency.clone(),
        lines,
        unpriced,
        net,
        tax_percent,
        total: in_paise(net + tax),
        tax: in_paise(tax),
    }
}

fn time_of(counted: &Counted, line: &store::Line, (now, expires_at): (DateTime<Utc>, DateTime<Utc>)) -> Time {
    let reached = u64::try_from(line.reached).unwrap_or(0);
    // As `muneem.messaging_take_places` paces a number: 0.95 of its limit less one, over 1.05, and at least one a second.
    let pace = u64::try_from((95 * i64::from(line.messages_per_second) - 100).max(105)).unwrap_or(105);
    let throughput_secs = (counted.allowed * 105).div_ceil(pace);
    let further_days = match line.daily_recipients.and_then(|limit| u64::try_from(limit).ok()) {
        Some(limit) => counted.new_recipients.saturating_sub(limit.saturating_sub(reached)).div_ceil(limit.max(1)),
        None => 0,
    };
    let needs = throughput_secs.max(further_days.saturating_mul(86_400));
    let ends =
        i64::try_from(needs).ok().and_then(TimeDelta::try_seconds).and_then(|needs| now.checked_add_signed(needs));
    Time {
        messages_per_second: line.messages_per_second,
        throughput_secs,
        daily_recipients: line.daily_recipients,
        reached,
        new_recipients: counted.new_recipients,
        further_days,
        ends_in_time: ends.is_some_and(|ends| ends <= expires_at),
    }
}

fn assumptions(counted: &Counted, cost: &Cost, time: &Time, now: DateTime<Utc>) -> Vec<String> {
    let (card, today) = (card(), india_date(now));
    let mut said = vec![
        format!(
            "Every message is delivered, and charged today by the {}; one that is not delivered costs nothing.",
            card.card
        ),
        format!("No volume tier lowers a rate; tax on it is {} %.", cost.tax_percent),
        "Who may be written to is judged again when each message goes; until then people may agree, or say no."
            .to_owned(),
        "The number does nothing else meanwhile, and nothing holds it; the carrier's own limit on what sells to one \
         person is not counted, because it tells nobody what it is."
            .to_owned(),
    ];
    for line in &cost.lines {
        let from = match card.since(line.category, line.in_window, today) {
            Some(from) => format!(", in force since {from}"),
            None => String::new(),
        };
        let within = if line.in_window { " to people who wrote within 24 hours" } else { "" };
        said.push(format!("{}{within}: {} {} each{from}.", line.category, card.currency, line.per_message));
    }
    if cost.unpriced > 0 {
        said.push(format!(
            "{} messages go to numbers outside {}, whose rates are not known here: they cost more than is told.",
            cost.unpriced, card.market
        ));
    }
    said.push(match time.daily_recipients {
        Some(limit) => format!(
            "The portfolio may write to {limit} people first in any 24 hours, {} of them are used now; it is not raised \
             meanwhile.",
            time.reached
        ),
        None => "The carrier has told of no limit on how many people are written to in 24 hours.".to_owned(),
    });
    if counted.people == 0 {
        said.push("Nobody waits in it.".to_owned());
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(messages_per_second: i32, daily_recipients: Option<i32>, reached: i64) -> store::Line {
        store::Line { waba_id: "1".to_owned(), messages_per_second, daily_recipients, reached }
    }

    fn counted(allowed: u64, new_recipients: u64) -> Counted {
        Counted { people: allowed, allowed, new_recipients, ..Counted::default() }
    }

    #[test]
    fn the_number_and_the_portfolio_each_set_their_time() {
        let now = DateTime::UNIX_EPOCH;
        let in_a_day = now + DAY;
        for (allowed, new, line, secs, days) in [
            (0, 0, line(80, Some(2_000), 0), 0, 0),
            // 71.43 a second: a second for the first, and for each begun one more.
            (1, 1, line(80, None, 0), 1, 0),
            (72, 72, line(80, None, 0), 2, 0),
            (250_000, 250_000, line(80, None, 0), 3_500, 0),
            (250_000, 250_000, line(1_000, None, 0), 277, 0),
            (10, 10, line(1, None, 0), 10, 0),
            // What is left of today, and then whole days.
            (2_000, 2_000, line(80, Some(2_000), 0), 28, 0),
            (2_001, 2_001, line(80, Some(2_000), 0), 29, 1),
            (2_000, 2_000, line(80, Some(2_000), 500), 28, 1),
            (6_000, 6_000, line(80, Some(2_000), 2_500), 84, 3),
            (6_000, 10, line(80, Some(2_000), 1_990), 84, 0),
        ] {
            let time = time_of(&counted(allowed, new), &line, (now, in_a_day));
            assert_eq!((time.throughput_secs, time.further_days), (secs, days), "{allowed} {line:?}");
            assert_eq!(time.ends_in_time, days <= 1, "{allowed} {line:?}");
        }
    }

    #[test]
    fn money_is_exact_and_rounded_once() {
        let mut counted = counted(100_001, 0);
        counted.priced.insert(("MARKETING", false), (Category::Marketing, 99_999));
        counted.priced.insert(("UTILITY", true), (Category::Utility, 1));
        counted.abroad = 1;
        let now: DateTime<Utc> = "2026-11-24T06:00:00Z".parse().expect("an instant");
        let cost = cost_of(&counted, now);
        // 99 999 × 0.8631 + 0.1150 = 86 309.2519; 18 % of it 15 535.665342.
        assert_eq!(cost.net.to_string(), "86309.2519");
        assert_eq!((cost.tax.to_string(), cost.total.to_string()), ("15535.67".to_owned(), "101844.92".to_owned()));
        assert_eq!((cost.unpriced, cost.lines.len()), (1, 2));
        // Midnight in India, not in Greenwich, begins the new rates.
        let at = |text: &str| cost_of(&counted, text.parse().expect("an instant")).lines[1].per_message.to_string();
        assert_eq!(at("2026-09-30T18:29:59Z"), "0");
        assert_eq!(at("2026-09-30T18:30:00Z"), "0.1150");
    }
}
