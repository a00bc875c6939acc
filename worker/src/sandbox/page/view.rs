//! What the frames show.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Asia::Kolkata;
use serde::Serialize;

use super::{
    super::{
        Inner,
        handset::Written,
        send::{FileRef, Tap},
        world::{Message, Progress, World},
    },
    Which,
    words::{Piece, pieces},
};

/// Chats and messages shown.
const SHOWN: usize = 200;

/// One thing in a chat.
enum Thing<'a> {
    Got(&'a Message),
    Wrote(&'a Written),
}

impl Thing<'_> {
    fn at(&self) -> DateTime<Utc> {
        match self {
            Self::Got(message) => message.displayed_at.unwrap_or(message.accepted_at),
            Self::Wrote(written) => written.at,
        }
    }
}

type Chats<'a> = BTreeMap<(usize, &'a str), Vec<Thing<'a>>>;

/// Everything that phones have shown, a chat for each number and phone, in order.
fn all(world: &World) -> Chats<'_> {
    let mut chats: Chats<'_> = BTreeMap::new();
    for message in world.messages.values().filter(|message| message.displayed_at.is_some()) {
        chats.entry((message.number, &message.to)).or_default().push(Thing::Got(message));
    }
    for written in world.handsets.written.values() {
        chats.entry((written.number, &written.from)).or_default().push(Thing::Wrote(written));
    }
    for things in chats.values_mut() {
        things.sort_by_key(Thing::at);
    }
    chats
}

/// The chat that is open: the one asked for, or the one in which something happened last.
fn open<'a>(world: &World, chats: &Chats<'a>, which: &Which) -> Option<(usize, String)> {
    let number = which.number.as_deref().and_then(|id| world.number(id));
    let phone: Option<String> =
        which.phone.as_ref().map(|phone| phone.chars().filter(char::is_ascii_digit).take(15).collect());
    if let Some(phone) = phone.filter(|phone| phone.len() >= 6) {
        let of_phone = chats.keys().find(|(_, known)| *known == phone).map(|(number, _)| *number);
        return Some((number.or(of_phone).unwrap_or(0), phone));
    }
    let fitting = chats.iter().filter(|((of, _), _)| number.is_none_or(|number| number == *of));
    let last = fitting.max_by_key(|(_, things)| things.last().map(Thing::at))?;
    Some((last.0.0, last.0.1.to_owned()))
}

#[derive(Serialize)]
pub(super) struct Phone {
    title: String,
    /// What the frames are asked for.
    query: String,
    businesses: Vec<Business>,
    several: bool,
    phone_label: String,
}

#[derive(Serialize)]
struct Business {
    id: String,
    name: String,
    open: bool,
}

pub(super) fn phone(inner: &Inner, which: &Which) -> Phone {
    let world = inner.world();
    let chats = all(&world);
    let open = open(&world, &chats, which);
    let wanted = which.number.as_deref().and_then(|id| world.number(id));
    let number = open.as_ref().map(|(number, _)| *number).or(wanted).unwrap_or(0);
    let asked = which.number.is_some() || which.phone.is_some();
    let query = match (&open, world.numbers.get(number)) {
        (Some((_, phone)), Some(line)) if asked => format!("number={}&phone={phone}", line.number.id),
        (None, Some(line)) if asked => format!("number={}", line.number.id),
        // Nothing was chosen: the frames follow what happens last.
        _ => String::new(),
    };
    let lines = world.numbers.iter().enumerate();
    Phone {
        title: world.numbers.get(number).map_or_else(String::new, |line| line.number.business_name.clone()),
        query,
        several: world.numbers.len() > 1,
        businesses: lines
            .map(|(index, line)| Business {
                id: line.number.id.clone(),
                name: line.number.business_name.clone(),
                open: index == number,
            })
            .collect(),
        phone_label: open.map(|(_, phone)| label(&phone)).unwrap_or_default(),
    }
}

#[derive(Serialize)]
pub(super) struct List {
    chats: Vec<Chat>,
    none: bool,
    /// Several businesses: each chat says whose it is.
    several: bool,
}

#[derive(Serialize)]
struct Chat {
    number: String,
    /// Whose chat it is, and with which phone where the label is a name.
    shop: String,
    phone: String,
    label: String,
    last: String,
    mine: bool,
    time: String,
    unread: usize,
    open: bool,
    hue: u32,
}

pub(super) fn chats(inner: &Inner, which: &Which) -> List {
    let world = inner.world();
    let all = all(&world);
    let open = open(&world, &all, which);
    let mut order: Vec<_> = all.iter().collect();
    order.sort_by_key(|(_, things)| std::cmp::Reverse(things.last().map(Thing::at)));
    let listed = order.into_iter().take(SHOWN).map(|((number, phone), things)| {
        let line = &world.numbers[*number].number;
        let (last, mine) = match things.last() {
            Some(Thing::Got(message)) => (summary(message), false),
            Some(Thing::Wrote(written)) => (written.text.clone(), true),
            None => (String::new(), false),
        };
        let unread =
            things.iter().filter(|thing| matches!(thing, Thing::Got(got) if got.progress == Progress::Delivered));
        Chat {
            number: line.id.clone(),
            shop: match world.handsets.get(phone).is_some_and(|handset| handset.name.is_some()) {
                true => format!("{} · {}", label(phone), line.business_name),
                false => line.business_name.clone(),
            },
            phone: (*phone).to_owned(),
            label: world.handsets.get(phone).and_then(|handset| handset.name.clone()).unwrap_or_else(|| label(phone)),
            last: last.split('\n').next().unwrap_or_default().chars().take(120).collect(),
            mine,
            time: things.last().map(|thing| clock_time(thing.at())).unwrap_or_default(),
            unread: unread.count(),
            open: open.as_ref().is_some_and(|(of, who)| of == number && who == phone),
            hue: phone.bytes().map(u32::from).sum::<u32>() % 6,
        }
    });
    let chats: Vec<_> = listed.collect();
    List { none: chats.is_empty(), chats, several: world.numbers.len() > 1 }
}

fn summary(message: &Message) -> String {
    let content = &message.content;
    let name = |file: &FileRef| file.filename.clone().unwrap_or_else(|| file.kind.clone());
    match (&content.reaction, &content.file) {
        (Some(emoji), _) => format!("Reacted {emoji}"),
        (None, Some(file)) if content.text.is_empty() => name(file),
        _ => content.text.clone(),
    }
}

#[derive(Serialize)]
pub(super) struct Talk {
    business: String,
    initials: String,
    business_phone: String,
    typing: bool,
    number: String,
    phone: String,
    label: String,
    unread: bool,
    /// Oldest first.
    bubbles: Vec<Bubble>,
    none: bool,
}

#[derive(Serialize)]
struct Bubble {
    /// A line above it: a new day.
    day: Option<String>,
    mine: bool,
    /// It follows one of the same side at once.
    joined: bool,
    head: Option<String>,
    words: Vec<Piece>,
    footer: Option<String>,
    time: String,
    lang: &'static str,
    ticks: &'static str,
    told: &'static str,
    quote: Option<Quote>,
    card: Option<Card>,
    image: Option<String>,
    buttons: Vec<Shown>,
    list: Option<String>,
    wamid: String,
    reactions: Vec<String>,
    offer: bool,
}

#[derive(Serialize)]
struct Quote {
    who: &'static str,
    text: String,
}

#[derive(Serialize)]
struct Card {
    id: Option<String>,
    badge: String,
    filename: String,
    facts: String,
}

/// A button below a message.
#[derive(Default, Serialize)]
struct Shown {
    index: usize,
    text: String,
    answers: bool,
    url: Option<String>,
    code: Option<String>,
    call: Option<String>,
}

pub(super) fn talk(inner: &Inner, which: &Which) -> Talk {
    let now = inner.now();
    let world = inner.world();
    let chats = all(&world);
    let open = open(&world, &chats, which);
    let wanted = which.number.as_deref().and_then(|id| world.number(id)).unwrap_or(0);
    let number = open.as_ref().map_or(wanted, |(number, _)| *number);
    let line = world.numbers.get(number).map(|line| &line.number);
    let business = line.map_or("Business", |number| number.business_name.as_str()).to_owned();
    let phone = open.map(|(_, phone)| phone).unwrap_or_default();
    let things = chats.get(&(number, phone.as_str())).map_or(&[][..], Vec::as_slice);
    let reactions = reactions(things);
    let mut bubbles: Vec<Bubble> = Vec::new();
    let mut day = String::new();
    for thing in things.iter().skip(things.len().saturating_sub(SHOWN)) {
        let Some(mut bubble) = bubble(&world, thing, &reactions) else { continue };
        let of = thing.at().with_timezone(&Kolkata).format("%-d %B %Y").to_string();
        bubble.joined = of == day && bubbles.last().is_some_and(|last| last.mine == bubble.mine);
        if of != day {
            day = of;
            bubble.day = Some(day.clone());
        }
        bubbles.push(bubble);
    }
    let unread = things.iter().any(|thing| matches!(thing, Thing::Got(got) if got.progress == Progress::Delivered));
    Talk {
        initials: business.split_whitespace().filter_map(|word| word.chars().next()).take(2).collect(),
        business,
        business_phone: line.map(|number| label(number.display_phone.digits())).unwrap_or_default(),
        typing: world.handsets.is_typing(number, &phone, now),
        number: line.map(|number| number.id.clone()).unwrap_or_default(),
        label: label(&phone),
        phone,
        unread,
        none: bubbles.is_empty(),
        bubbles,
    }
}

/// Reactions by the message that they are for; the last of each side stands.
fn reactions(things: &[Thing<'_>]) -> BTreeMap<(String, bool), String> {
    let mut found = BTreeMap::new();
    for thing in things {
        if let Thing::Got(message) = thing
            && let (Some(emoji), Some(to)) = (&message.content.reaction, &message.content.context)
        {
            found.insert((to.clone(), false), emoji.clone());
        }
    }
    found
}

fn bubble(world: &World, thing: &Thing<'_>, reactions: &BTreeMap<(String, bool), String>) -> Option<Bubble> {
    let (wamid, mine, text, context) = match thing {
        Thing::Got(message) if message.content.reaction.is_some() => return None,
        Thing::Got(message) => (&message.wamid, false, &message.content.text, &message.content.context),
        Thing::Wrote(written) => (&written.wamid, true, &written.text, &written.context),
    };
    let (ticks, told) = match thing {
        Thing::Got(message) => match message.progress {
            Progress::Read => ("read", "Read"),
            Progress::Delivered => ("delivered", "Delivered"),
            Progress::Accepted | Progress::Sent | Progress::Failed => ("sent", "Sent"),
        },
        Thing::Wrote(written) if written.seen => ("read", "Seen by the business"),
        Thing::Wrote(_) => ("delivered", "Delivered to the business"),
    };
    let devanagari = text.chars().any(|character| ('\u{900}'..='\u{97f}').contains(&character));
    let mut bubble = Bubble {
        day: None,
        mine,
        joined: false,
        head: None,
        words: pieces(text),
        footer: None,
        time: clock_time(thing.at()),
        lang: if devanagari { "hi" } else { "en" },
        ticks,
        told,
        quote: context.as_ref().and_then(|wamid| quote(world, wamid)),
        card: None,
        image: None,
        buttons: Vec::new(),
        list: None,
        wamid: wamid.clone(),
        reactions: [false, true]
            .iter()
            .filter_map(|side| reactions.get(&(wamid.clone(), *side)).cloned())
            .filter(|emoji| !emoji.is_empty())
            .collect(),
        offer: false,
    };
    if let Thing::Got(message) = thing {
        let content = &message.content;
        bubble.head.clone_from(&content.head);
        bubble.footer.clone_from(&content.footer);
        bubble.offer = content.category.as_deref() == Some("MARKETING");
        bubble.list = content.list.as_ref().map(|(label, _)| label.clone());
        bubble.buttons = content.taps.iter().enumerate().map(|(index, tap)| shown(index, tap)).collect();
        if let Some(file) = &content.file {
            file_in(world, file, &mut bubble);
        }
    }
    Some(bubble)
}

fn file_in(world: &World, file: &FileRef, bubble: &mut Bubble) {
    let kept = file.id.as_ref().and_then(|id| Some((id, world.media.get(id)?)));
    match kept {
        Some((id, media)) if media.mime_type.starts_with("image/") && file.kind != "document" => {
            bubble.image = Some(id.clone());
        }
        kept => {
            let mime = kept.map_or("", |(_, media)| media.mime_type.as_str());
            let badge = match mime {
                "application/pdf" => "PDF".to_owned(),
                "text/plain" => "TXT".to_owned(),
                _ if file.kind == "document" => "DOC".to_owned(),
                _ => file.kind.to_uppercase(),
            };
            bubble.card = Some(Card {
                id: kept.map(|(id, _)| id.clone()),
                filename: file.filename.clone().unwrap_or_else(|| "Untitled".to_owned()),
                facts: kept.map_or_else(|| "no longer kept".to_owned(), |(_, media)| facts(&media.content, &badge)),
                badge,
            });
        }
    }
}

fn shown(index: usize, tap: &Tap) -> Shown {
    let base = |text: &String| Shown { index, text: text.clone(), ..Shown::default() };
    match tap {
        Tap::Reply { text, .. } | Tap::Choice { title: text, .. } => Shown { answers: true, ..base(text) },
        // Only an address of the web may be followed from a message.
        Tap::Url { text, url } if url.starts_with("https://") || url.starts_with("http://") => {
            Shown { url: Some(url.clone()), ..base(text) }
        }
        Tap::Url { text, .. } | Tap::Other { text, .. } => base(text),
        Tap::Copy { text, code } => Shown { code: Some(code.clone()), ..base(text) },
        Tap::Call { text, number } => Shown { call: Some(number.clone()), ..base(text) },
    }
}

fn quote(world: &World, wamid: &str) -> Option<Quote> {
    let text = |text: &str| text.split('\n').next().unwrap_or_default().chars().take(90).collect();
    if let Some(message) = world.message(wamid) {
        return Some(Quote { who: "them", text: text(&summary(message)) });
    }
    let written = world.handsets.written.values().rev().find(|one| one.wamid == wamid)?;
    Some(Quote { who: "You", text: text(&written.text) })
}

#[derive(Serialize)]
pub(super) struct Reply {
    number: String,
    phone: String,
    label: String,
    business: String,
    off: bool,
    stopped: bool,
    /// Until when the business may write freely.
    window: Option<String>,
    none: bool,
}

pub(super) fn reply(inner: &Inner, which: &Which) -> Reply {
    let now = inner.now();
    let world = inner.world();
    let open = open(&world, &all(&world), which);
    let wanted = which.number.as_deref().and_then(|id| world.number(id)).unwrap_or(0);
    let number = open.as_ref().map_or(wanted, |(number, _)| *number);
    let none = open.is_none();
    let phone = open.map(|(_, phone)| phone).unwrap_or_default();
    let handset = world.handsets.get(&phone);
    let window = world.handsets.window(number, &phone).filter(|until| *until > now);
    let line = world.numbers.get(number).map(|line| &line.number);
    Reply {
        number: line.map(|number| number.id.clone()).unwrap_or_default(),
        business: line.map(|number| number.business_name.clone()).unwrap_or_default(),
        label: label(&phone),
        off: handset.is_some_and(|handset| handset.offline),
        stopped: handset.is_some_and(|handset| handset.marketing_stopped),
        window: window.map(|until| until.with_timezone(&Kolkata).format("%-d %b, %-I:%M %P").to_string()),
        phone,
        none,
    }
}

#[derive(Serialize)]
pub(super) struct Choices {
    wamid: String,
    number: String,
    phone: String,
    label: String,
    title: String,
    sections: Vec<Section>,
}

#[derive(Serialize)]
struct Section {
    title: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    title: String,
    description: String,
}

pub(super) fn list(inner: &Inner, wamid: &str) -> Option<Choices> {
    let world = inner.world();
    let message = world.message(wamid)?;
    let (title, sections) = message.content.list.as_ref()?;
    let row = |row: &super::super::send::Row| Row {
        id: row.id.clone(),
        title: row.title.clone(),
        description: row.description.clone(),
    };
    Some(Choices {
        wamid: wamid.to_owned(),
        number: world.numbers[message.number].number.id.clone(),
        phone: message.to.clone(),
        label: label(&message.to),
        title: title.clone(),
        sections: sections
            .iter()
            .map(|section| Section { title: section.title.clone(), rows: section.rows.iter().map(row).collect() })
            .collect(),
    })
}

/// `1 page · 84 kB · PDF`, the pages where the file says so in clear.
fn facts(content: &[u8], badge: &str) -> String {
    let size = match content.len() {
        bytes if bytes < 1000 => format!("{bytes} B"),
        bytes if bytes < 1_000_000 => format!("{} kB", bytes / 1000),
        bytes => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    };
    match if badge == "PDF" { pages(content) } else { 0 } {
        0 => format!("{size} · {badge}"),
        1 => format!("1 page · {size} · {badge}"),
        pages => format!("{pages} pages · {size} · {badge}"),
    }
}

/// Page objects written in clear.
fn pages(content: &[u8]) -> usize {
    let text = String::from_utf8_lossy(content);
    let follows = |after: &str| !after.starts_with(|next: char| next.is_ascii_alphanumeric());
    text.split("/Type/Page").skip(1).filter(|after| follows(after)).count()
        + text.split("/Type /Page").skip(1).filter(|after| follows(after)).count()
}

/// `+91 98123 45678`
fn label(digits: &str) -> String {
    match digits.strip_prefix("91").filter(|national| national.len() == 10) {
        Some(national) => format!("+91 {} {}", &national[..5], &national[5..]),
        None => format!("+{digits}"),
    }
}

fn clock_time(at: DateTime<Utc>) -> String {
    at.with_timezone(&Kolkata).format("%-I:%M %P").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_files_read_well() {
        assert_eq!(label("919812345678"), "+91 98123 45678");
        assert_eq!(label("14155550123"), "+14155550123");
        let pdf = b"%PDF /Type /Pages /Count 1 /Type /Page /Type/Page ";
        assert_eq!(facts(pdf, "PDF"), "2 pages · 50 B · PDF");
        assert_eq!(facts(&[b'x'; 1_500], "PDF"), "1 kB · PDF");
        assert_eq!(facts(&vec![b'x'; 2_340_000], "DOC"), "2.3 MB · DOC");
    }
}
