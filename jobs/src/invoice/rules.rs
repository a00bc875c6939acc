//! What a document must hold before it may be issued. Every problem is collected, so that one answer mends them all.

use chrono::{Datelike, NaiveDate};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{
    model::{Address, Buyer, Deliver, EInvoicing, Invoice, Kind, Line, NewInvoice, Turnover},
    numbers::{self, Fault},
    tax::{self, Amounts, Heads},
};
use crate::{
    law::{FinancialYear, find_state},
    messaging::{
        Language,
        template::{self, Library, Template},
    },
    outbound::Phone,
};

/// Folder of the words that go with a document.
const WORDS: &str = "tax_invoice";

/// From this taxable value on an unregistered recipient is named with her address (r.46(e)), in rupees. The value of a
/// supply is without the tax on it (CGST Act s.15(2)(a)).
const RECIPIENT_NEEDED_FROM: Decimal = Decimal::from_parts(50_000, 0, 0, false, 0);

/// State code of everything abroad.
const OUTSIDE_INDIA: &str = "96";

/// The year in which GST began.
const FIRST_YEAR: i32 = 2017;

/// ₹1,000 crore: more than a shop sells; beyond it a decimal was written without its point.
const TOTAL_BELOW: Decimal = Decimal::from_parts(1_410_065_408, 2, 0, false, 0);

/// A rate of GST in percent, and the day from which it holds.
struct Rate {
    percent: Decimal,
    from: Option<(i32, u32, u32)>,
}

/// `rate(25, 2)` is 0.25 percent.
const fn rate(digits: u32, decimals: u32) -> Rate {
    Rate { percent: Decimal::from_parts(digits, 0, 0, false, decimals), from: None }
}

/// Rates that were ever notified. Which of them a thing bears is the supplier's to know.
const RATES: [Rate; 13] = [
    rate(0, 0),
    rate(1, 1),
    rate(25, 2),
    rate(1, 0),
    rate(15, 1),
    rate(3, 0),
    rate(5, 0),
    rate(6, 0),
    rate(75, 1),
    rate(12, 0),
    rate(18, 0),
    rate(28, 0),
    Rate { from: Some((2025, 9, 22)), ..rate(40, 0) },
];

/// One thing that is wrong with a document. Never repeats a value: it may be personal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where: `lines[2].hsn`, as a path below `invoice`, or below the payload for `deliver`.
    pub field: String,
    /// What is wrong.
    pub wrong: String,
    /// What to do about it.
    pub mend: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.field, self.wrong, self.mend)
    }
}

/// Checks what a frontend handed over and works its amounts out. `today` is the day in India.
///
/// # Errors
/// Every problem found, in the order of the document.
pub fn check(new: &NewInvoice, today: NaiveDate) -> Result<Amounts, Vec<Problem>> {
    let invoice = &new.invoice;
    let mut problems = Problems::default();
    check_heading(&mut problems, invoice, today);
    check_supplier(&mut problems, invoice);
    check_buyer(&mut problems, invoice);
    check_supply(&mut problems, invoice);
    for (index, line) in invoice.lines.iter().enumerate() {
        check_line(&mut problems, invoice, line, &format!("lines[{index}]"));
    }
    check_imeis_differ(&mut problems, invoice);
    check_credit_note(&mut problems, invoice);
    check_e_invoice(&mut problems, invoice);
    if let Some(deliver) = &new.deliver {
        check_delivery(&mut problems, deliver);
    }
    // Amounts of lines out of bounds could overflow: work them out only for a document that is sound so far.
    problems.into_result()?;
    let amounts = tax::work_out(invoice);
    let mut problems = Problems::default();
    check_amounts(&mut problems, invoice, &amounts);
    problems.into_result()?;
    Ok(amounts)
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, wrong: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Problem { field: field.into(), wrong: wrong.into(), mend: mend.into() });
    }

    fn check(&mut self, field: impl Into<String>, checked: Result<(), Fault>) {
        if let Err((wrong, mend)) = checked {
            self.add(field, wrong, mend);
        }
    }

    fn into_result(self) -> Result<(), Vec<Problem>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }

    /// Text that is printed: not empty, not too long, no control or direction-changing characters, and only signs that
    /// the fonts have.
    fn text(&mut self, field: impl Into<String>, text: &str, most: usize) {
        let field = field.into();
        if text.trim().is_empty() {
            self.add(&field, "is empty", "write it, or leave the field out if it is optional");
        }
        if text.chars().count() > most {
            self.add(&field, format!("is longer than {most} characters"), "shorten it");
        }
        if text.chars().any(is_unprintable) {
            self.add(&field, "holds a control character", "remove line breaks, tabs and invisible characters");
        } else if let Some(sign) = muneem_document::find_missing_sign(text) {
            let wrong = format!("holds a sign that the fonts of the document do not have (U+{:04X})", u32::from(sign));
            self.add(&field, wrong, "remove it; emoji and scripts from outside India cannot be printed");
        }
    }

    fn text_if_given(&mut self, field: &str, text: Option<&str>, most: usize) {
        if let Some(text) = text {
            self.text(field, text, most);
        }
    }

    fn state(&mut self, field: impl Into<String>, code: &str, on: NaiveDate) {
        match find_state(code) {
            None => self.add(field, "is no State code of GST", "write two digits, such as 27 for Maharashtra"),
            Some(state) if !state.is_used_on(on) => {
                self.add(field, "is a State code no longer in use", "write the code of today's State");
            }
            Some(_) => {}
        }
    }
}

fn is_unprintable(sign: char) -> bool {
    // Direction overrides could make an amount read backwards; joiners (U+200C, U+200D) belong to Indian scripts.
    sign.is_control()
        || matches!(sign, '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}')
        || sign == '\u{FEFF}'
}

fn check_heading(problems: &mut Problems, invoice: &Invoice, today: NaiveDate) {
    let e_invoice = invoice.supplier.e_invoicing == EInvoicing::Required;
    problems.check("number", numbers::check_serial(&invoice.number, e_invoice));
    if invoice.issued_on > today {
        problems.add("issued_on", "lies in the future", "write the day on which it is issued, in India");
    }
    if invoice.issued_on.year() < FIRST_YEAR {
        problems.add("issued_on", "lies before GST began", "write the year with four digits");
    }
    problems.text_if_given("note", invoice.note.as_deref(), 500);
    if let Some(id) = &invoice.upi_id {
        problems.check("upi_id", numbers::check_upi_id(id));
        if invoice.kind == Kind::CreditNote {
            problems.add("upi_id", "asks for money on a credit note", "leave it out");
        }
    }
}

fn check_supplier(problems: &mut Problems, invoice: &Invoice) {
    let supplier = &invoice.supplier;
    problems.text("supplier.legal_name", &supplier.legal_name, 100);
    problems.text_if_given("supplier.trade_name", supplier.trade_name.as_deref(), 100);
    problems.text_if_given("supplier.phone", supplier.phone.as_deref(), 30);
    problems.text_if_given("supplier.email", supplier.email.as_deref(), 100);
    problems.check("supplier.gstin", numbers::check_gstin(&supplier.gstin));
    check_address(problems, "supplier.address", &supplier.address, invoice.issued_on);
    check_whole_address(problems, "supplier.address", &supplier.address, "a supplier is printed with her address");
    if supplier.gstin.get(..2).is_some_and(|state| state != supplier.address.state) {
        problems.add(
            "supplier.address.state",
            "is not the State of the GSTIN",
            "write the place of business that this GSTIN is registered for",
        );
    }
    if supplier.composition && invoice.kind == Kind::TaxInvoice {
        problems.add(
            "kind",
            "is a tax invoice of a supplier who pays by composition",
            "write `bill_of_supply`: tax may not be collected",
        );
    }
}

fn check_buyer(problems: &mut Problems, invoice: &Invoice) {
    let on = invoice.issued_on;
    if let Some(buyer) = &invoice.buyer {
        problems.text_if_given("buyer.name", buyer.name.as_deref(), 100);
        if let Some(gstin) = &buyer.gstin {
            problems.check("buyer.gstin", numbers::check_gstin(gstin));
        }
        if let Some(uin) = &buyer.uin {
            problems.check("buyer.uin", numbers::check_uin(uin));
            if buyer.gstin.is_some() {
                problems.add("buyer.uin", "stands beside a GSTIN", "leave one of them out");
            }
        }
        if let Some(address) = &buyer.address {
            check_address(problems, "buyer.address", address, on);
        }
        if buyer.is_registered() {
            check_recipient(problems, invoice, "a registered buyer is printed with name and address");
        }
        if let (Some(gstin), Some(address)) = (&buyer.gstin, &buyer.address)
            && gstin.get(..2).is_some_and(|state| state != address.state)
        {
            problems.add(
                "buyer.address.state",
                "is not the State of the GSTIN",
                "write the address that this GSTIN is registered for, and where it goes as `delivery_address`",
            );
        }
    }
    if let Some(address) = &invoice.delivery_address {
        check_address(problems, "delivery_address", address, on);
        check_whole_address(problems, "delivery_address", address, "goods cannot be delivered to a State");
    }
}

fn check_address(problems: &mut Problems, field: &str, address: &Address, on: NaiveDate) {
    if address.lines.len() > 4 {
        problems.add(format!("{field}.lines"), "has more than 4 lines", "join some");
    }
    for (index, line) in address.lines.iter().enumerate() {
        problems.text(format!("{field}.lines[{index}]"), line, 100);
    }
    problems.text_if_given(&format!("{field}.city"), address.city.as_deref(), 60);
    if let Some(pin) = &address.pin
        && (pin.len() != 6 || !pin.bytes().all(|byte| byte.is_ascii_digit()) || pin.starts_with('0'))
        && address.state != OUTSIDE_INDIA
    {
        problems.add(format!("{field}.pin"), "is no PIN code", "write six digits without spaces");
    }
    problems.state(format!("{field}.state"), &address.state, on);
    let country = format!("{field}.country");
    problems.text_if_given(&country, address.country.as_deref(), 60);
    match (&address.country, address.state == OUTSIDE_INDIA) {
        (None, true) => problems.add(country, "is missing", "name the country of destination (r.46)"),
        (Some(_), false) => problems.add(country, "stands beside a State of India", "leave it out, or write State 96"),
        _ => {}
    }
}

fn check_whole_address(problems: &mut Problems, field: &str, address: &Address, why: &str) {
    if address.lines.is_empty() {
        problems.add(format!("{field}.lines"), "is missing", format!("write house and street: {why}"));
    }
    if address.city.is_none() {
        problems.add(format!("{field}.city"), "is missing", format!("write the city, town or village: {why}"));
    }
}

/// Name and address of the recipient, where the law asks for them.
fn check_recipient(problems: &mut Problems, invoice: &Invoice, why: &str) {
    let missing = |problems: &mut Problems, field: &str| {
        problems.add(field, "is missing", format!("write it: {why}"));
    };
    let Some(buyer) = &invoice.buyer else {
        return missing(problems, "buyer");
    };
    if buyer.name.is_none() {
        missing(problems, "buyer.name");
    }
    match &buyer.address {
        None => missing(problems, "buyer.address"),
        Some(address) => check_whole_address(problems, "buyer.address", address, why),
    }
}

fn check_supply(problems: &mut Problems, invoice: &Invoice) {
    let exported = invoice.zero_rated.is_some_and(|zero_rated| zero_rated.is_export());
    if let Some(place) = &invoice.place_of_supply {
        problems.state("place_of_supply", place, invoice.issued_on);
        if tax::law_fixes_place(invoice) && place != tax::place_of_supply(invoice) {
            problems.add(
                "place_of_supply",
                "is not the State recorded for an unregistered buyer of goods",
                "leave it out, or correct the State in `delivery_address` or `buyer.address`: IGST Act s.10(1)(ca)",
            );
        }
    }
    if exported != (tax::place_of_supply(invoice) == OUTSIDE_INDIA) {
        problems.add(
            "place_of_supply",
            if exported { "lies in India for an export" } else { "lies outside India" },
            "an export has place of supply 96 and `zero_rated` `export_with_tax` or `export_under_lut`",
        );
    }
    let registered = invoice.buyer.as_ref().is_some_and(Buyer::is_registered);
    if invoice.zero_rated.is_some() && !exported && !registered {
        problems.add("buyer.gstin", "is missing", "write the GSTIN of the SEZ unit or developer");
    }
    if invoice.zero_rated.is_some() && invoice.kind == Kind::BillOfSupply {
        problems.add("zero_rated", "stands on a bill of supply", "write a tax invoice");
    }
    if invoice.reverse_charge && invoice.kind == Kind::BillOfSupply {
        problems.add("reverse_charge", "stands on a bill of supply, which has no tax", "leave it out");
    }
    if invoice.reverse_charge && !registered {
        problems.add("reverse_charge", "is set for an unregistered buyer", "leave it out, or write her GSTIN");
    }
    let recorded = invoice.buyer.as_ref().and_then(|buyer| buyer.address.as_ref());
    if invoice.sold_online && recorded.is_none() {
        problems.add(
            "buyer.address",
            "is missing",
            "write at least the State: sales online need it at any value (r.46)",
        );
    }
    if invoice.kind == Kind::CreditNote && !registered && recorded.is_none() {
        problems.add("buyer.address", "is missing", "write at least the State: a credit note names it (r.53(1A)(f))");
    }
    match invoice.lines.len() {
        0 => problems.add("lines", "is empty", "write at least one line"),
        1..=500 => {}
        _ => problems.add("lines", "has more than 500 lines", "split the document"),
    }
}

fn check_line(problems: &mut Problems, invoice: &Invoice, line: &Line, field: &str) {
    problems.text(format!("{field}.description"), &line.description, 300);
    check_hsn(problems, invoice, line, field);
    let is_service = line.hsn.as_deref().is_some_and(numbers::is_service);
    match &line.unit {
        Some(unit) => problems.check(format!("{field}.unit"), numbers::check_unit(unit)),
        None if is_service => {}
        None => problems.add(format!("{field}.unit"), "is missing", "write NOS for numbers, PCS for pieces, ..."),
    }
    if line.quantity.0.is_zero() {
        problems.add(format!("{field}.quantity"), "is zero", "write how many are supplied, or leave the line out");
    }
    if line.quantity.0.normalize().scale() > 3 {
        problems.add(format!("{field}.quantity"), "has more than 3 decimals", "round it");
    }
    let value = line.quantity.0.checked_mul(line.unit_price.0);
    if value.is_none_or(|value| value >= TOTAL_BELOW) {
        problems.add(format!("{field}.unit_price"), "makes more than ₹1,000 crore", "check the decimal point");
    } else if value < line.discount.map(|discount| discount.0) {
        problems.add(
            format!("{field}.discount"),
            "is more than the line",
            "write rupees off the whole line, before tax",
        );
    }
    check_rates(problems, invoice, line, field);
    for (index, imei) in line.imeis.iter().enumerate() {
        problems.check(format!("{field}.imeis[{index}]"), numbers::check_imei(imei));
    }
}

/// Digits of HSN by turnover (Notification 78/2020-CT): 4 up to ₹5 crore, and it may be left out for unregistered
/// buyers; 6 above; 8 for exported goods.
fn check_hsn(problems: &mut Problems, invoice: &Invoice, line: &Line, field: &str) {
    let large = invoice.supplier.turnover == Turnover::Above5Crore;
    let exported = invoice.zero_rated.is_some_and(|zero_rated| zero_rated.is_export());
    let field = format!("{field}.hsn");
    match line.hsn.as_deref() {
        Some(hsn) => {
            let least = match () {
                () if exported && !numbers::is_service(hsn) => 8,
                () if large => 6,
                () => 4,
            };
            problems.check(field, numbers::check_hsn(hsn, least));
        }
        None if large => problems.add(field, "is missing", "write 6 digits: turnover is above ₹5 crore"),
        None if exported => problems.add(field, "is missing", "write all 8 digits: it is an export"),
        None if invoice.buyer.as_ref().is_some_and(Buyer::is_registered) => {
            problems.add(field, "is missing", "write at least 4 digits: the buyer is registered");
        }
        None => {}
    }
}

fn check_rates(problems: &mut Problems, invoice: &Invoice, line: &Line, field: &str) {
    let rate_field = format!("{field}.gst_rate");
    if invoice.kind == Kind::BillOfSupply {
        if line.gst_rate.is_some() {
            problems.add(rate_field, "stands on a bill of supply", "leave it out: it carries no tax (r.49)");
        }
        if line.cess_rate.is_some() {
            problems.add(format!("{field}.cess_rate"), "stands on a bill of supply", "leave it out");
        }
        return;
    }
    match line.gst_rate {
        None => problems.add(rate_field, "is missing", "write the rate in percent: \"18\", \"5\" or \"0\""),
        Some(rate) => match RATES.iter().find(|known| known.percent == rate.0) {
            None => problems.add(rate_field, "is no rate of GST", "write the whole rate in percent: \"18\", not 9 + 9"),
            Some(known) => {
                let from = known.from.and_then(|(year, month, day)| NaiveDate::from_ymd_opt(year, month, day));
                if from.is_some_and(|from| invoice.issued_on < from) {
                    problems.add(rate_field, "did not exist on that day", "write the rate of the day of supply");
                }
            }
        },
    }
    let rates = [("gst_rate", line.gst_rate), ("cess_rate", line.cess_rate)];
    if invoice.zero_rated.is_some_and(|zero_rated| zero_rated.is_without_tax()) {
        for (name, _) in rates.iter().filter(|(_, rate)| rate.is_some_and(|rate| !rate.0.is_zero())) {
            let wrong = "charges tax under bond or letter of undertaking";
            problems.add(format!("{field}.{name}"), wrong, "write \"0\", or `..._with_tax` in `zero_rated`");
        }
    }
    if line.cess_rate.is_some_and(|rate| rate.0 > Decimal::from(300)) {
        problems.add(format!("{field}.cess_rate"), "is above 300 percent", "write percent of the taxable value");
    }
}

fn check_imeis_differ(problems: &mut Problems, invoice: &Invoice) {
    let mut seen = std::collections::HashSet::new();
    for (line_index, line) in invoice.lines.iter().enumerate() {
        for (index, imei) in line.imeis.iter().enumerate() {
            if !seen.insert(imei) {
                let field = format!("lines[{line_index}].imeis[{index}]");
                problems.add(field, "stands on the document twice", "a dual-SIM phone has two different IMEIs");
            }
        }
    }
}

fn check_credit_note(problems: &mut Problems, invoice: &Invoice) {
    problems.text_if_given("reason", invoice.reason.as_deref(), 200);
    if invoice.kind != Kind::CreditNote {
        if !invoice.original_invoices.is_empty() {
            problems.add("original_invoices", "is for credit notes", "leave it out, or write `credit_note` in `kind`");
        }
        if invoice.reason.is_some() {
            problems.add("reason", "is for credit notes", "leave it out, or write it into `note`");
        }
        return;
    }
    match invoice.original_invoices.len() {
        0 => problems.add(
            "original_invoices",
            "is empty",
            "name number and date of each invoice it corrects: r.53(1A)(g)",
        ),
        1..=50 => {}
        _ => problems.add("original_invoices", "names more than 50 invoices", "split the credit note"),
    }
    for (index, original) in invoice.original_invoices.iter().enumerate() {
        let field = format!("original_invoices[{index}]");
        problems.check(format!("{field}.number"), numbers::check_serial(&original.number, false));
        if original.issued_on > invoice.issued_on {
            problems.add(format!("{field}.issued_on"), "is after the credit note", "write the date of the invoice");
        }
        if invoice.issued_on > FinancialYear::of(original.issued_on).credit_notes_until() {
            problems.add(
                format!("{field}.issued_on"),
                "is too long ago for a credit note with tax",
                "settle it outside GST: such notes end on 30 November after the financial year (CGST Act s.34(2))",
            );
        }
    }
}

fn check_e_invoice(problems: &mut Problems, invoice: &Invoice) {
    let supplier = &invoice.supplier;
    let registered = invoice.buyer.as_ref().is_some_and(Buyer::is_registered);
    let covered = invoice.kind != Kind::BillOfSupply && (registered || invoice.zero_rated.is_some());
    match &invoice.e_invoice {
        None if supplier.e_invoicing == EInvoicing::Required && covered => problems.add(
            "e_invoice",
            "is missing",
            "register the document on the portal first and hand over IRN and signed QR: without it it is not valid",
        ),
        None => {}
        Some(_) if invoice.kind == Kind::BillOfSupply => {
            problems.add("e_invoice", "stands on a bill of supply", "leave it out");
        }
        Some(e_invoice) => {
            if e_invoice.irn.len() != 64 || !e_invoice.irn.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                problems.add("e_invoice.irn", "is no IRN", "copy the 64 hexadecimal digits that the portal returned");
            }
            if !(1..=20).contains(&e_invoice.ack_number.len())
                || !e_invoice.ack_number.bytes().all(|byte| byte.is_ascii_digit())
            {
                problems.add("e_invoice.ack_number", "is no acknowledgement number", "copy its digits from the portal");
            }
            let printable = e_invoice.signed_qr.bytes().all(|byte| byte.is_ascii_graphic());
            if !printable || !(1..=2000).contains(&e_invoice.signed_qr.len()) {
                problems.add("e_invoice.signed_qr", "is no signed QR", "copy the signed text that the portal returned");
            }
        }
    }
}

fn check_delivery(problems: &mut Problems, deliver: &Deliver) {
    let Some(whatsapp) = &deliver.whatsapp else { return };
    if !Phone::parse(&whatsapp.to).is_ok_and(|phone| phone.as_e164() == whatsapp.to) {
        problems.add("deliver.whatsapp.to", "is no mobile number", "write +91 and ten digits without spaces");
    }
    if let Some(language) = &whatsapp.language
        && words_for(template::library(), language).is_none()
    {
        problems.add("deliver.whatsapp.language", "is not known", languages_there_are(template::library()));
    }
}

/// The words of a bill for somebody of this language, in hers or in the next that she reads ([`Language::chain`]);
/// `None`: the code names no language that words may be in.
pub(super) fn words_for<'a>(library: &'a Library, language: &str) -> Option<&'a Template> {
    let language: Language = language.parse().ok()?;
    language.chain().find_map(|one| library.exact(WORDS, one)).map(|entry| &entry.template)
}

/// What may be written instead.
pub(super) fn languages_there_are(library: &Library) -> String {
    let (own, fallen): (Vec<_>, Vec<_>) =
        Language::all().partition(|language| library.exact(WORDS, *language).is_some());
    let list = |languages: &[Language]| languages.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ");
    let next: Vec<_> = fallen.into_iter().filter(|one| words_for(library, one.as_str()).is_some()).collect();
    let next = if next.is_empty() {
        String::new()
    } else {
        format!("; for {} the next of them that she reads is taken", list(&next))
    };
    format!("the bill's words are there in {}{next}; or leave it out for English", list(&own))
}

/// What only the amounts can tell.
fn check_amounts(problems: &mut Problems, invoice: &Invoice, amounts: &Amounts) {
    if amounts.total >= TOTAL_BELOW {
        problems.add("lines", "come to more than ₹1,000 crore", "check the decimal points");
    }
    let registered = invoice.buyer.as_ref().is_some_and(Buyer::is_registered);
    if !registered && amounts.taxable >= RECIPIENT_NEEDED_FROM && invoice.kind != Kind::BillOfSupply {
        check_recipient(problems, invoice, "the taxable value is ₹50,000 or more (r.46(e))");
    }
    if let Some(expected) = invoice.total
        && expected.0 != amounts.total
    {
        problems.add(
            "total",
            format!(
                "differs: taxable {} + tax {} + round-off {} = {}",
                amounts.taxable,
                if invoice.reverse_charge { Decimal::ZERO } else { amounts.tax.sum() },
                amounts.round_off,
                amounts.total
            ),
            match amounts.heads {
                Heads::None => "round lines to the paisa and the total to the rupee, or leave it out",
                _ => "round each head of tax of each line half up and the total to the rupee, or leave it out",
            },
        );
    }
}
