//! What is printed, worked out and formatted; the template decides only how it looks.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use muneem_document::{Options, Template};
use rust_decimal::Decimal;
use serde::Serialize;

use super::{
    Error,
    model::{Address, Buyer, EInvoicing, Invoice, InvoiceId, Kind, Line},
    tax::{Amounts, Heads, LineAmounts, Tax},
    words::{amount_in_words, grouped, grouped_plain},
};
use crate::law::find_state;

const TEMPLATE: Template = Template {
    name: "invoice/tax_invoice/en/document.typ",
    source: include_str!("../../../templates/invoice/tax_invoice/en/document.typ"),
};

/// Makes the PDF of a checked document. Takes tens of milliseconds of CPU: call it where blocking is allowed.
///
/// # Errors
/// [`Error::Paper`] or [`Error::Qr`]; the same document fails the same way every time.
pub(super) fn make_pdf(id: InvoiceId, invoice: &Invoice, amounts: &Amounts) -> Result<Vec<u8>, Error> {
    let data = page_data(id, invoice, amounts)?;
    let ident = format!("{}/{}/{}", invoice.supplier.gstin, invoice.kind.as_str(), invoice.number.to_uppercase());
    let options = Options { ident: &ident, dated: invoice.issued_on };
    muneem_document::render(TEMPLATE, &data, options).map_err(|error| Error::Paper(id, error))
}

/// What the template is given.
pub(super) fn page_data(id: InvoiceId, invoice: &Invoice, amounts: &Amounts) -> Result<serde_json::Value, Error> {
    serde_json::to_value(page(id, invoice, amounts)?).map_err(Error::Unreadable)
}

#[derive(Serialize)]
struct Page {
    title: &'static str,
    description: String,
    number: String,
    issued_on: String,
    total_label: &'static str,
    amount_label: &'static str,
    total: String,
    in_words: String,
    place_of_supply: Option<String>,
    supplier: SupplierBlock,
    parties: Vec<Party>,
    remarks: Vec<String>,
    lines: Vec<Item>,
    sums: Vec<Sum>,
    rate_columns: Vec<&'static str>,
    rates: Vec<Vec<String>>,
    pay: Option<Pay>,
    e_invoice: Option<Portal>,
    note: Option<String>,
    foot: Vec<String>,
    attachment: String,
}

#[derive(Serialize)]
struct SupplierBlock {
    name: String,
    legal_name: String,
    gstin: String,
    address: Vec<String>,
    contact: String,
}

#[derive(Serialize)]
struct Party {
    title: &'static str,
    name: Option<String>,
    lines: Vec<String>,
}

#[derive(Serialize)]
struct Item {
    description: String,
    quantity: String,
    details: String,
    tax: String,
    amount: String,
    imeis: Vec<String>,
}

#[derive(Serialize)]
struct Sum {
    label: String,
    amount: String,
}

#[derive(Serialize)]
struct Pay {
    upi_id: String,
    qr: String,
}

#[derive(Serialize)]
struct Portal {
    /// In pieces that fit on a line.
    irn: Vec<String>,
    ack_number: String,
    ack_on: String,
    qr: String,
}

fn page(id: InvoiceId, invoice: &Invoice, amounts: &Amounts) -> Result<Page, Error> {
    let supplier = &invoice.supplier;
    let name = breakable(supplier.trade_name.as_ref().unwrap_or(&supplier.legal_name));
    let title = match invoice.kind {
        Kind::TaxInvoice => "Tax Invoice",
        Kind::BillOfSupply => "Bill of Supply",
        Kind::CreditNote => "Credit Note",
    };
    let qr = |text: &str| muneem_document::qr_svg(text).map_err(|error| Error::Qr(id, error));
    let pay = match &invoice.upi_id {
        Some(upi_id) => Some(Pay { upi_id: upi_id.clone(), qr: qr(&upi_link(invoice, upi_id, amounts.total))? }),
        None => None,
    };
    let e_invoice = match &invoice.e_invoice {
        Some(portal) => Some(Portal {
            irn: portal.irn.as_bytes().chunks(32).map(|part| String::from_utf8_lossy(part).into_owned()).collect(),
            ack_number: portal.ack_number.clone(),
            ack_on: long_date(portal.ack_on),
            qr: qr(&portal.signed_qr)?,
        }),
        None => None,
    };
    let contact: Vec<_> = [&supplier.phone, &supplier.email].into_iter().flatten().cloned().collect();
    Ok(Page {
        title,
        description: format!("{title} {} of {}, {}", invoice.number, invoice.issued_on, supplier.legal_name),
        number: invoice.number.clone(),
        issued_on: long_date(invoice.issued_on),
        total_label: if invoice.kind == Kind::CreditNote { "Total credit" } else { "Total" },
        amount_label: if amounts.heads == Heads::None { "Value" } else { "Taxable value" },
        total: grouped(amounts.total),
        in_words: amount_in_words(amounts.total),
        place_of_supply: (amounts.heads != Heads::None).then(|| state_name(&amounts.place_of_supply)),
        supplier: SupplierBlock {
            name,
            legal_name: supplier.legal_name.clone(),
            gstin: supplier.gstin.clone(),
            address: address_lines(&supplier.address),
            contact: contact.join(" · "),
        },
        parties: parties(invoice),
        remarks: remarks(invoice),
        lines: invoice.lines.iter().zip(&amounts.lines).map(|(line, of)| item(line, of, amounts.heads)).collect(),
        sums: sums(invoice, amounts),
        rate_columns: rate_columns(amounts),
        rates: rates(invoice, amounts),
        pay,
        e_invoice,
        note: invoice.note.as_deref().map(breakable),
        foot: foot(invoice),
        attachment: serde_json::to_string_pretty(invoice).map_err(Error::Unreadable)?,
    })
}

/// The link that UPI apps open: whom to pay, how much, and for which document.
pub(super) fn upi_link(invoice: &Invoice, upi_id: &str, total: Decimal) -> String {
    let supplier = &invoice.supplier;
    let name = supplier.trade_name.as_ref().unwrap_or(&supplier.legal_name);
    format!(
        "upi://pay?pa={}&pn={}&am={total:.2}&cu=INR&tn={}",
        percent_encoded(upi_id),
        percent_encoded(name),
        percent_encoded(&invoice.number)
    )
}

fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;

    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn parties(invoice: &Invoice) -> Vec<Party> {
    let mut parties = Vec::new();
    if let Some(buyer) = &invoice.buyer {
        parties.push(Party {
            title: "Billed to",
            name: buyer.name.as_deref().map(breakable),
            lines: buyer_lines(buyer),
        });
    }
    if let Some(address) = &invoice.delivery_address {
        parties.push(Party { title: "Delivered to", name: None, lines: address_lines(address) });
    }
    parties
}

fn buyer_lines(buyer: &Buyer) -> Vec<String> {
    let mut lines = buyer.address.as_ref().map(address_lines).unwrap_or_default();
    lines.extend(buyer.gstin.as_ref().map(|gstin| format!("GSTIN {gstin}")));
    lines.extend(buyer.uin.as_ref().map(|uin| format!("UIN {uin}")));
    lines
}

fn address_lines(address: &Address) -> Vec<String> {
    let mut lines: Vec<_> = address.lines.iter().map(|line| breakable(line)).collect();
    let city: Vec<_> = [&address.city, &address.pin].into_iter().flatten().map(String::as_str).collect();
    if !city.is_empty() {
        lines.push(city.join(" "));
    }
    lines.push(address.country.clone().unwrap_or_else(|| state_name(&address.state)));
    lines
}

fn state_name(code: &str) -> String {
    find_state(code).map_or_else(|| code.to_owned(), |state| format!("{} ({code})", state.name))
}

/// What must stand out: what is corrected, who pays the tax, endorsements.
fn remarks(invoice: &Invoice) -> Vec<String> {
    let mut remarks = Vec::new();
    if !invoice.original_invoices.is_empty() {
        let originals: Vec<_> = invoice
            .original_invoices
            .iter()
            .map(|original| format!("{} of {}", original.number, long_date(original.issued_on)))
            .collect();
        remarks.push(format!("Against invoice {}", originals.join(", ")));
    }
    remarks.extend(invoice.reason.as_ref().map(|reason| format!("Reason: {reason}")));
    if invoice.reverse_charge {
        remarks.push("Tax is payable on reverse charge by the recipient".to_owned());
    }
    if let Some(zero_rated) = invoice.zero_rated {
        remarks.push(zero_rated.endorsement().to_owned());
    }
    if invoice.supplier.composition {
        remarks.push("Composition taxable person, not eligible to collect tax on supplies".to_owned());
    }
    remarks
}

fn item(line: &Line, of: &LineAmounts, heads: Heads) -> Item {
    let unit = line.unit.as_deref().filter(|unit| *unit != "NA").map(|unit| format!(" {unit}")).unwrap_or_default();
    let mut details = String::new();
    if let Some(discount) = line.discount.filter(|discount| !discount.0.is_zero()) {
        details.push_str(&format!("less ₹{}", grouped(discount.0)));
    }
    if let Some(hsn) = &line.hsn {
        let name = if super::numbers::is_service(hsn) { "SAC" } else { "HSN" };
        let separator = if details.is_empty() { "" } else { " · " };
        details.push_str(&format!("{separator}{name} {hsn}"));
    }
    Item {
        description: breakable(&line.description),
        quantity: format!("{}{unit} × ₹{}", grouped_plain(line.quantity.0), unit_price(line.unit_price.0)),
        details: if details.is_empty() { details } else { format!(" · {details}") },
        tax: tax_of_line(line, of.tax, heads),
        amount: grouped(of.taxable),
        imeis: line.imeis.clone(),
    }
}

/// At least two decimals, as prices are read, and all that were given.
fn unit_price(price: Decimal) -> String {
    if price.normalize().scale() <= 2 { grouped(price) } else { grouped_plain(price) }
}

fn tax_of_line(line: &Line, tax: Tax, heads: Heads) -> String {
    let rate = line.gst_rate.unwrap_or_default().0;
    let half = rate / Decimal::TWO;
    let one = |name: &str, rate: Decimal, amount: Decimal| format!("{name} {}% ₹{}", rate.normalize(), grouped(amount));
    let mut parts = match heads {
        Heads::None => return String::new(),
        Heads::CentralAndState => vec![one("CGST", half, tax.cgst), one("SGST", half, tax.sgst)],
        Heads::CentralAndTerritory => vec![one("CGST", half, tax.cgst), one("UTGST", half, tax.utgst)],
        Heads::Integrated => vec![one("IGST", rate, tax.igst)],
    };
    if let Some(cess) = line.cess_rate.filter(|rate| !rate.0.is_zero()) {
        parts.push(one("Cess", cess.0, tax.cess));
    }
    parts.join(" + ")
}

/// Takes one head out of a tax.
type AmountOf = fn(&Tax) -> Decimal;

/// Heads of tax that the document bears, with what each comes to.
fn heads_of(amounts: &Amounts) -> Vec<(&'static str, AmountOf)> {
    let mut heads: Vec<(&'static str, AmountOf)> = match amounts.heads {
        Heads::None => return Vec::new(),
        Heads::CentralAndState => vec![("CGST", |tax| tax.cgst), ("SGST", |tax| tax.sgst)],
        Heads::CentralAndTerritory => vec![("CGST", |tax| tax.cgst), ("UTGST", |tax| tax.utgst)],
        Heads::Integrated => vec![("IGST", |tax| tax.igst)],
    };
    if !amounts.tax.cess.is_zero() {
        heads.push(("Cess", |tax| tax.cess));
    }
    heads
}

fn sums(invoice: &Invoice, amounts: &Amounts) -> Vec<Sum> {
    let sum = |label: &str, amount: Decimal| Sum { label: label.to_owned(), amount: format!("₹{}", grouped(amount)) };
    let discount: Decimal = invoice.lines.iter().filter_map(|line| line.discount).map(|discount| discount.0).sum();
    let mut sums = Vec::new();
    if !discount.is_zero() {
        sums.push(sum("Discount, taken off above", discount));
    }
    sums.push(sum(if amounts.heads == Heads::None { "Value" } else { "Taxable value" }, amounts.taxable));
    for (name, of) in heads_of(amounts) {
        let label = if invoice.reverse_charge { format!("{name}, payable by the recipient") } else { name.to_owned() };
        sums.push(sum(&label, of(&amounts.tax)));
    }
    if !amounts.round_off.is_zero() {
        let sign = if amounts.round_off.is_sign_negative() { "−" } else { "+" };
        let amount = format!("{sign}₹{}", grouped(amounts.round_off.abs()));
        sums.push(Sum { label: "Round-off".to_owned(), amount });
    }
    sums
}

fn rate_columns(amounts: &Amounts) -> Vec<&'static str> {
    let mut columns = vec!["GST rate", "Taxable value"];
    columns.extend(heads_of(amounts).into_iter().map(|(name, _)| name));
    columns
}

/// Tax by rate. One rate needs no table.
fn rates(invoice: &Invoice, amounts: &Amounts) -> Vec<Vec<String>> {
    let mut by_rate: BTreeMap<Decimal, (Decimal, Tax)> = BTreeMap::new();
    for (line, of) in invoice.lines.iter().zip(&amounts.lines) {
        let entry = by_rate.entry(line.gst_rate.unwrap_or_default().0).or_default();
        *entry = (entry.0 + of.taxable, entry.1.plus(of.tax));
    }
    let heads = heads_of(amounts);
    if heads.is_empty() || by_rate.len() < 2 {
        return Vec::new();
    }
    by_rate
        .into_iter()
        .map(|(rate, (taxable, tax))| {
            let mut row = vec![format!("{}%", rate.normalize()), format!("₹{}", grouped(taxable))];
            row.extend(heads.iter().map(|(_, of)| format!("₹{}", grouped(of(&tax)))));
            row
        })
        .collect()
}

fn foot(invoice: &Invoice) -> Vec<String> {
    let mut foot = Vec::new();
    if invoice.kind != Kind::BillOfSupply {
        foot.push(format!("Tax payable on reverse charge: {}", if invoice.reverse_charge { "yes" } else { "no" }));
    }
    if invoice.supplier.e_invoicing == EInvoicing::Exempt && invoice.kind == Kind::TaxInvoice {
        foot.push(
            "We declare that though our aggregate turnover exceeds the limit notified under rule 48(4), we are not \
             required to prepare an invoice under that sub-rule."
                .to_owned(),
        );
    }
    foot.push("Issued electronically under the Information Technology Act, 2000; needs no signature.".to_owned());
    foot
}

/// Lets a run of letters without a space break where it would leave the page.
fn breakable(text: &str) -> String {
    const LONGEST: usize = 30;

    let mut out = String::with_capacity(text.len());
    let mut run = 0;
    for sign in text.chars() {
        run = if sign.is_ascii_graphic() { run + 1 } else { 0 };
        out.push(sign);
        if run == LONGEST {
            out.push('\u{200B}');
            run = 0;
        }
    }
    out
}

fn long_date(day: NaiveDate) -> String {
    day.format("%-d %B %Y").to_string()
}
