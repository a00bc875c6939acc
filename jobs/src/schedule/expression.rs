use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::{Asia::Kolkata, Tz};

/// Longest expression taken, in bytes.
const LONGEST: usize = 200;

/// When a schedule falls due: crontab as people type it, in Asia/Kolkata.
///
/// Five fields (minute, hour, day of month, month, day of week), six with seconds in front, seven with years behind.
/// Numbers, names (`MON`, `january`), lists, ranges and steps; `@hourly @daily @weekly @monthly @yearly`. Week days
/// are the crontab's in every form: 0 and 7 are Sunday, 1 is Monday. When day of month and day of week are both given,
/// either is enough, as crontab(5) says.
///
/// The `cron` crate finds the instants; it is handed numbers only, because it counts week days from Sunday = 1 and
/// wants both days to match.
#[derive(Clone, Debug)]
pub struct Expression {
    source: String,
    /// One, or two of which either is enough.
    schedules: Vec<cron::Schedule>,
}

/// Why an expression was refused. The text names the field and the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Too many or too few fields.
    #[error(
        "schedule expression has {0} fields: write five (minute hour day-of-month month day-of-week), or six with \
         seconds in front"
    )]
    FieldCount(usize),
    /// One field does not say what it should.
    #[error("schedule field {field} (`{text}`): {why}")]
    Field {
        /// Which.
        field: &'static str,
        /// What was written there.
        text: String,
        /// What is wrong, and what to write.
        why: String,
    },
    /// A shorthand that is not taken.
    #[error("schedule shorthand `{text}`: {why}")]
    Shorthand {
        /// What was written.
        text: String,
        /// What to write.
        why: &'static str,
    },
    /// No such day ever comes.
    #[error("schedule expression `{0}` never falls due before the year 2101: check day-of-month, month and year")]
    Never(String),
    /// Longer than 200 bytes.
    #[error("schedule expression is {0} bytes long: {LONGEST} are enough")]
    TooLong(usize),
}

/// What one field takes.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Values by name, lower case; a name may be shortened to its first three letters.
    names: &'static [&'static str],
    kind: FieldKind,
}

#[derive(PartialEq)]
enum FieldKind {
    Plain,
    DayOfMonth,
    DayOfWeek,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEK_DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

const SECOND: Field = Field { name: "second", min: 0, max: 59, names: &[], kind: FieldKind::Plain };
const MINUTE: Field = Field { name: "minute", min: 0, max: 59, names: &[], kind: FieldKind::Plain };
const HOUR: Field = Field { name: "hour", min: 0, max: 23, names: &[], kind: FieldKind::Plain };
const DAY_OF_MONTH: Field = Field { name: "day-of-month", min: 1, max: 31, names: &[], kind: FieldKind::DayOfMonth };
const MONTH: Field = Field { name: "month", min: 1, max: 12, names: &MONTHS, kind: FieldKind::Plain };
const DAY_OF_WEEK: Field = Field { name: "day-of-week", min: 0, max: 7, names: &WEEK_DAYS, kind: FieldKind::DayOfWeek };
const YEAR: Field = Field { name: "year", min: 1970, max: 2100, names: &[], kind: FieldKind::Plain };

impl Expression {
    /// Reads what somebody typed.
    ///
    /// # Errors
    /// [`ExpressionError`] when it means nothing, or something this crate cannot do.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > LONGEST {
            return Err(ExpressionError::TooLong(text.len()));
        }
        let source = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let plain = match source.strip_prefix('@') {
            Some(_) => shorthand(&source)?,
            None => &source,
        };
        let fields = plain.split(' ').filter(|field| !field.is_empty()).collect::<Vec<_>>();
        let (second, rest) = match fields.len() {
            5 => ("0", &fields[..]),
            6 | 7 => (fields[0], &fields[1..]),
            other => return Err(ExpressionError::FieldCount(other)),
        };
        let [second, minute, hour] =
            [SECOND.numbers(second)?, MINUTE.numbers(rest[0])?, HOUR.numbers(rest[1])?].map(|field| field.join(","));
        let day_of_month = DAY_OF_MONTH.numbers(rest[2])?.join(",");
        let month = MONTH.numbers(rest[3])?.join(",");
        let day_of_week = DAY_OF_WEEK.numbers(rest[4])?.join(",");
        let year = YEAR.numbers(rest.get(5).copied().unwrap_or("*"))?.join(",");

        let days = if restricts(rest[2]) && restricts(rest[4]) {
            vec![(day_of_month.as_str(), "*"), ("*", day_of_week.as_str())]
        } else {
            vec![(day_of_month.as_str(), day_of_week.as_str())]
        };
        let schedules = days
            .into_iter()
            .map(|(month_day, week_day)| format!("{second} {minute} {hour} {month_day} {month} {week_day} {year}"))
            .map(|numbers| numbers.parse().expect("lists of numbers in range are what the crate reads"))
            .collect();
        let expression = Self { source, schedules };
        match expression.next_after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(expression),
            None => Err(ExpressionError::Never(expression.source)),
        }
    }

    /// The expression as it was typed, blanks evened out.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// First slot later than `instant`, if one comes before the year 2101.
    pub fn next_after(&self, instant: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.each(|schedule| schedule.after(&instant.with_timezone(&Kolkata)).next()).min()
    }

    /// Newest slot at or before `instant`, if there was one since 1970.
    pub fn newest_at(&self, instant: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // The crate looks strictly before a whole second, but includes the second that a fraction lies in.
        let just_after = instant.with_timezone(&Kolkata) + TimeDelta::nanoseconds(1);
        self.each(|schedule| schedule.after(&just_after).next_back()).max()
    }

    /// The next `count` slots after `instant`, for people to look at before they save. Fewer when the years run out.
    pub fn upcoming(&self, instant: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        std::iter::successors(self.next_after(instant), |slot| self.next_after(*slot)).take(count).collect()
    }

    fn each(&self, find: impl Fn(&cron::Schedule) -> Option<DateTime<Tz>>) -> impl Iterator<Item = DateTime<Utc>> {
        self.schedules.iter().filter_map(move |schedule| find(schedule).map(|slot| slot.with_timezone(&Utc)))
    }
}

impl std::str::FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl std::fmt::Display for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.source)
    }
}

/// Five fields for a shorthand.
fn shorthand(text: &str) -> Result<&'static str, ExpressionError> {
    let refuse = |why| ExpressionError::Shorthand { text: text.to_owned(), why };
    match text.to_ascii_lowercase().as_str() {
        "@hourly" => Ok("0 * * * *"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@monthly" => Ok("0 0 1 * *"),
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        "@reboot" => Err(refuse("a schedule runs by the clock, not by a start: enqueue the job instead")),
        every if every.starts_with("@every") => {
            Err(refuse("write the step into a field, for example `*/5 * * * *` for every five minutes"))
        }
        _ => Err(refuse("take @hourly, @daily, @weekly, @monthly or @yearly, or write five fields")),
    }
}

/// Whether a day field narrows the days; crontab(5) asks for a star at its start.
fn restricts(text: &str) -> bool {
    !text.starts_with(['*', '?'])
}

impl Field {
    /// The field as the numbers the `cron` crate understands, or `*`.
    fn numbers(&self, text: &str) -> Result<Vec<String>, ExpressionError> {
        let mut values = BTreeSet::new();
        for part in text.split(',') {
            self.part(part, &mut values).map_err(|why| ExpressionError::Field {
                field: self.name,
                text: text.to_owned(),
                why,
            })?;
        }
        if values.len() == (self.min..=self.last()).count() {
            return Ok(vec!["*".to_owned()]);
        }
        let shift = u32::from(self.kind == FieldKind::DayOfWeek);
        Ok(values.into_iter().map(|value| (value + shift).to_string()).collect())
    }

    /// One item of a list: `*`, `5`, `MON-FRI`, `*/15`, `10-20/2`, `30/10`.
    fn part(&self, part: &str, values: &mut BTreeSet<u32>) -> Result<(), String> {
        if part.is_empty() {
            return Err("a list has an empty place: write for example 1,15".to_owned());
        }
        let (base, step) = match part.split_once('/') {
            Some((base, step)) => (base, self.step(step)?),
            None => (part, 1),
        };
        let stepped = part.contains('/');
        let (first, last) = match base {
            "?" if self.kind == FieldKind::Plain => return Err("`?` stands for a day only: write *".to_owned()),
            "*" | "?" => (self.min, self.last()),
            _ => match base.split_once('-') {
                Some((first, last)) => self.range(first, last)?,
                None => {
                    let value = self.value(base)?;
                    (value, if stepped { self.last().max(value) } else { value })
                }
            },
        };
        let every = usize::try_from(step).unwrap_or(usize::MAX);
        for value in (first..=last).step_by(every) {
            values.insert(if self.kind == FieldKind::DayOfWeek { value % 7 } else { value });
        }
        Ok(())
    }

    /// The last value that is not the first again: Saturday, for 7 is Sunday like 0.
    fn last(&self) -> u32 {
        if self.kind == FieldKind::DayOfWeek { 6 } else { self.max }
    }

    fn range(&self, first: &str, last: &str) -> Result<(u32, u32), String> {
        let (start, mut end) = (self.value(first)?, self.value(last)?);
        if self.kind == FieldKind::DayOfWeek && end == 0 && start > 0 {
            end = 7;
        }
        if start > end {
            return Err(format!(
                "the range {first}-{last} runs backwards: write it as two, up to {} and from {}",
                self.max, self.min
            ));
        }
        Ok((start, end))
    }

    fn step(&self, text: &str) -> Result<u32, String> {
        let longest = self.max - self.min;
        match number(text) {
            Some(step) if (1..=longest).contains(&step) => Ok(step),
            _ => Err(format!("the step after / is a number from 1 to {longest}")),
        }
    }

    /// A number or a name.
    fn value(&self, text: &str) -> Result<u32, String> {
        if let Some(value) = number(text) {
            return if (self.min..=self.max).contains(&value) { Ok(value) } else { Err(self.expected()) };
        }
        let lower = text.to_ascii_lowercase();
        let named = self.names.iter().position(|name| lower.len() >= 3 && name.starts_with(&lower));
        if let Some(position) = named {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            return Ok(position + self.min);
        }
        Err(self.unknown(&lower))
    }

    fn unknown(&self, lower: &str) -> String {
        let day = self.kind != FieldKind::Plain;
        match lower {
            "l" | "lw" if self.kind == FieldKind::DayOfMonth => {
                "last day of the month is not a thing crontab knows: take day 1 of the next month".to_owned()
            }
            _ if day && lower.contains('#') => {
                "`#` (the n-th week day of a month) is not taken: name the days of the month".to_owned()
            }
            _ if day && (lower.ends_with('l') || lower.ends_with('w')) => {
                format!("`L` and `W` (last day, nearest working day) are not taken: {}", self.expected())
            }
            _ if lower == "h" => "`H` (a hashed value) is not taken: choose a number".to_owned(),
            _ => self.expected(),
        }
    }

    fn expected(&self) -> String {
        match self.kind {
            FieldKind::DayOfWeek => "wants 0 to 7 (0 and 7 are Sunday, 1 is Monday) or SUN to SAT".to_owned(),
            _ if !self.names.is_empty() => format!("wants {} to {} or JAN to DEC", self.min, self.max),
            _ => format!("wants {} to {}", self.min, self.max),
        }
    }
}

/// Digits only: no sign, no blank, no overflow.
fn number(text: &str) -> Option<u32> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, NaiveDate, TimeZone, Timelike, Weekday};
    use proptest::prelude::*;

    use super::*;

    /// Monday 23 November 2026, 10:00 in India.
    fn start() -> DateTime<Utc> {
        Kolkata.with_ymd_and_hms(2026, 11, 23, 10, 0, 0).unwrap().to_utc()
    }

    fn indian(slot: DateTime<Utc>) -> String {
        slot.with_timezone(&Kolkata).format("%a %Y-%m-%d %H:%M:%S").to_string()
    }

    #[test]
    fn what_people_type_falls_due_when_they_mean() {
        let cases = [
            // (typed, first, second)
            ("0 9 * * *", "Tue 2026-11-24 09:00:00", "Wed 2026-11-25 09:00:00"),
            ("0 0 9 * * *", "Tue 2026-11-24 09:00:00", "Wed 2026-11-25 09:00:00"),
            ("30 0 9 * * * 2027", "Fri 2027-01-01 09:00:30", "Sat 2027-01-02 09:00:30"),
            ("  0   9  * * *  ", "Tue 2026-11-24 09:00:00", "Wed 2026-11-25 09:00:00"),
            ("0 9 * * MON-FRI", "Tue 2026-11-24 09:00:00", "Wed 2026-11-25 09:00:00"),
            // Week days are the crontab's, not Quartz's.
            ("0 9 * * 1", "Mon 2026-11-30 09:00:00", "Mon 2026-12-07 09:00:00"),
            ("0 0 9 * * 1", "Mon 2026-11-30 09:00:00", "Mon 2026-12-07 09:00:00"),
            ("0 9 * * 0", "Sun 2026-11-29 09:00:00", "Sun 2026-12-06 09:00:00"),
            ("0 9 * * 7", "Sun 2026-11-29 09:00:00", "Sun 2026-12-06 09:00:00"),
            ("0 9 * * 5-7", "Fri 2026-11-27 09:00:00", "Sat 2026-11-28 09:00:00"),
            ("0 9 * * 6-0", "Sat 2026-11-28 09:00:00", "Sun 2026-11-29 09:00:00"),
            ("0 9 * * sat-sun", "Sat 2026-11-28 09:00:00", "Sun 2026-11-29 09:00:00"),
            ("0 9 * * 1-5/2", "Wed 2026-11-25 09:00:00", "Fri 2026-11-27 09:00:00"),
            ("0 9 * * Thurs,Tuesday", "Tue 2026-11-24 09:00:00", "Thu 2026-11-26 09:00:00"),
            ("0 9 * * */2", "Tue 2026-11-24 09:00:00", "Thu 2026-11-26 09:00:00"),
            ("0 9 * * 1/2", "Wed 2026-11-25 09:00:00", "Fri 2026-11-27 09:00:00"),
            ("0 9 * * 0-7", "Tue 2026-11-24 09:00:00", "Wed 2026-11-25 09:00:00"),
            ("0 9 ? * 3", "Wed 2026-11-25 09:00:00", "Wed 2026-12-02 09:00:00"),
            // Either day is enough when both are given, as crontab(5) says.
            ("0 9 1 * MON", "Mon 2026-11-30 09:00:00", "Tue 2026-12-01 09:00:00"),
            // A star in front narrows instead.
            ("0 9 */2 * MON", "Mon 2026-12-07 09:00:00", "Mon 2026-12-21 09:00:00"),
            ("*/15 9-17 * * *", "Mon 2026-11-23 10:15:00", "Mon 2026-11-23 10:30:00"),
            ("5/20 * * * *", "Mon 2026-11-23 10:05:00", "Mon 2026-11-23 10:25:00"),
            ("0 0 1 apr,OCTOBER *", "Thu 2027-04-01 00:00:00", "Fri 2027-10-01 00:00:00"),
            ("59 23 31 * *", "Thu 2026-12-31 23:59:00", "Sun 2027-01-31 23:59:00"),
            ("0 0 29 2 *", "Tue 2028-02-29 00:00:00", "Sun 2032-02-29 00:00:00"),
            ("@hourly", "Mon 2026-11-23 11:00:00", "Mon 2026-11-23 12:00:00"),
            ("@daily", "Tue 2026-11-24 00:00:00", "Wed 2026-11-25 00:00:00"),
            ("@midnight", "Tue 2026-11-24 00:00:00", "Wed 2026-11-25 00:00:00"),
            ("@weekly", "Sun 2026-11-29 00:00:00", "Sun 2026-12-06 00:00:00"),
            ("@monthly", "Tue 2026-12-01 00:00:00", "Fri 2027-01-01 00:00:00"),
            ("@Yearly", "Fri 2027-01-01 00:00:00", "Sat 2028-01-01 00:00:00"),
        ];
        for (typed, first, second) in cases {
            let expression = Expression::parse(typed).unwrap_or_else(|why| panic!("{typed}: {why}"));
            let slots = expression.upcoming(start(), 2).into_iter().map(indian).collect::<Vec<_>>();
            assert_eq!(slots, [first, second], "{typed}");
        }
    }

    #[test]
    fn what_it_cannot_mean_is_refused_by_field() {
        let cases = [
            ("", "schedule expression has 0 fields"),
            ("* * * *", "has 4 fields"),
            ("0 9 * * 1, 2 3 4", "has 8 fields"),
            ("60 * * * *", "field minute (`60`): wants 0 to 59"),
            ("0 24 * * *", "field hour (`24`): wants 0 to 23"),
            ("0 9 0 * *", "field day-of-month (`0`): wants 1 to 31"),
            ("0 9 L * *", "field day-of-month (`L`): last day of the month"),
            ("0 9 15W * *", "field day-of-month (`15W`): `L` and `W`"),
            ("0 9 * * MON#1", "field day-of-week (`MON#1`): `#`"),
            ("0 9 * * 5L", "field day-of-week (`5L`): `L` and `W`"),
            ("0 9 * * 8", "field day-of-week (`8`): wants 0 to 7 (0 and 7 are Sunday"),
            ("0 9 * * FRI-MON", "field day-of-week (`FRI-MON`): the range FRI-MON runs backwards"),
            (
                "0 22-6 * * *",
                "field hour (`22-6`): the range 22-6 runs backwards: write it as two, up to 23 and from 0",
            ),
            ("0 9 * 13 *", "field month (`13`): wants 1 to 12 or JAN to DEC"),
            ("0 9 * ja *", "field month (`ja`): wants 1 to 12"),
            ("0 9 * * mo", "field day-of-week (`mo`): wants 0 to 7"),
            ("*/0 * * * *", "field minute (`*/0`): the step after / is a number from 1 to 59"),
            ("*/90 * * * *", "field minute (`*/90`): the step"),
            ("1,,2 * * * *", "field minute (`1,,2`): a list has an empty place"),
            ("-1 * * * *", "field minute (`-1`)"),
            ("1.5 * * * *", "field minute (`1.5`)"),
            ("? * * * *", "field minute (`?`): `?` stands for a day only"),
            ("H * * * *", "field minute (`H`): `H` (a hashed value)"),
            ("٣ * * * *", "field minute (`٣`)"),
            ("0 0 0 1 1 * 1969", "field year (`1969`): wants 1970 to 2100"),
            ("0 0 30 2 *", "never falls due before the year 2101"),
            ("0 0 31 4,6,9,11 *", "never falls due"),
            ("@reboot", "shorthand `@reboot`: a schedule runs by the clock"),
            ("@every 5m", "shorthand `@every 5m`: write the step into a field"),
            ("@fortnightly", "shorthand `@fortnightly`: take @hourly"),
            ("CRON_TZ=UTC 0 9 * * *", "field second (`CRON_TZ=UTC`)"),
        ];
        for (typed, wanted) in cases {
            let refused = Expression::parse(typed).expect_err(typed).to_string();
            assert!(refused.contains(wanted), "{typed}: {refused}");
        }
        assert_eq!(Expression::parse(&"*".repeat(201)).unwrap_err(), ExpressionError::TooLong(201));
    }

    #[test]
    fn midnight_in_india_is_half_past_six_the_evening_before_in_utc() {
        let daily = Expression::parse("@daily").unwrap();
        let just_before = Utc.with_ymd_and_hms(2026, 11, 23, 18, 29, 59).unwrap();
        let midnight = Utc.with_ymd_and_hms(2026, 11, 23, 18, 30, 0).unwrap();
        assert_eq!(daily.next_after(just_before), Some(midnight));
        assert_eq!(daily.next_after(midnight), Some(midnight + TimeDelta::days(1)));
        assert_eq!(daily.newest_at(midnight), Some(midnight));
        assert_eq!(daily.newest_at(just_before), Some(midnight - TimeDelta::days(1)));
    }

    #[test]
    fn a_fraction_of_a_second_neither_repeats_nor_skips_a_slot() {
        let each_second = Expression::parse("* * * * * *").unwrap();
        let half = start() + TimeDelta::milliseconds(500);
        assert_eq!(each_second.next_after(half), Some(start() + TimeDelta::seconds(1)));
        assert_eq!(each_second.newest_at(half), Some(start()));
    }

    /// Whether five numeric fields match a minute, straight from crontab(5).
    fn matches(fields: &[BTreeSet<u32>; 5], stars: [bool; 2], at: DateTime<Tz>) -> bool {
        let [minutes, hours, days, months, week_days] = fields;
        let day = days.contains(&at.day());
        let week_day = week_days.contains(&at.weekday().num_days_from_sunday());
        let either = match stars {
            [false, false] => day || week_day,
            _ => (stars[0] || day) && (stars[1] || week_day),
        };
        minutes.contains(&at.minute()) && hours.contains(&at.hour()) && months.contains(&at.month()) && either
    }

    fn field(min: u32, max: u32) -> impl Strategy<Value = Option<BTreeSet<u32>>> {
        prop::option::of(prop::collection::btree_set(min..=max, 1..4))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn slots_are_those_that_a_walk_over_all_minutes_finds(
            minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12), week_day in field(0, 6),
            offset in 0i64..400_000,
        ) {
            let typed = [&minute, &hour, &day, &month, &week_day]
                .map(|values| values.as_ref().map_or("*".to_owned(), |values| {
                    values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
                }))
                .join(" ");
            let stars = [day.is_none(), week_day.is_none()];
            let fields = [(minute, 0, 59), (hour, 0, 23), (day, 1, 31), (month, 1, 12), (week_day, 0, 6)]
                .map(|(values, min, max)| values.unwrap_or_else(|| (min..=max).collect()));
            let Ok(expression) = Expression::parse(&typed) else {
                return Ok(()); // 30 February and its like
            };
            let from = start() + TimeDelta::minutes(offset);
            let walk = |step: i64| (1..60_000)
                .map(|n| from + TimeDelta::minutes(step * n))
                .find(|at| matches(&fields, stars, at.with_timezone(&Kolkata)));
            if let Some(next) = walk(1) {
                prop_assert_eq!(expression.next_after(from), Some(next), "{} after {}", typed, from);
            }
            if let Some(previous) = walk(-1) {
                prop_assert_eq!(
                    expression.newest_at(from - TimeDelta::nanoseconds(1)), Some(previous), "{} before {}", typed, from
                );
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = Expression::parse(&text);
        }
    }

    #[test]
    fn start_is_a_monday() {
        assert_eq!(start().with_timezone(&Kolkata).weekday(), Weekday::Mon);
        assert_eq!(start().with_timezone(&Kolkata).date_naive(), NaiveDate::from_ymd_opt(2026, 11, 23).unwrap());
    }
}
