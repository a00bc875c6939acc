//! Where a supply takes place, which taxes it bears, and what it comes to.

use rust_decimal::{Decimal, RoundingStrategy};

use super::{
    model::{Buyer, Invoice, Kind, Line, ZeroRated},
    numbers,
};
use crate::law::find_state;

/// Which heads of tax a document bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// Within a State: CGST and SGST, each at half the rate.
    CentralAndState,
    /// Within a Union territory without legislature: CGST and UTGST, each at half the rate.
    CentralAndTerritory,
    /// Between States, and with or by an SEZ or abroad: IGST.
    Integrated,
    /// A bill of supply bears none.
    None,
}

/// Tax of a line or document by head, in rupees and whole paise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tax {
    /// Central tax.
    pub cgst: Decimal,
    /// State tax.
    pub sgst: Decimal,
    /// Union territory tax.
    pub utgst: Decimal,
    /// Integrated tax.
    pub igst: Decimal,
    /// Compensation cess.
    pub cess: Decimal,
}

impl Tax {
    /// All heads together.
    pub fn sum(self) -> Decimal {
        self.cgst + self.sgst + self.utgst + self.igst + self.cess
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            cgst: self.cgst + other.cgst,
            sgst: self.sgst + other.sgst,
            utgst: self.utgst + other.utgst,
            igst: self.igst + other.igst,
            cess: self.cess + other.cess,
        }
    }
}

/// A line, worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineAmounts {
    /// After discount, before tax.
    pub taxable: Decimal,
    /// Its taxes.
    pub tax: Tax,
}

/// What a document comes to. All amounts in rupees and whole paise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amounts {
    /// State code of the place of supply.
    pub place_of_supply: String,
    /// Heads of tax.
    pub heads: Heads,
    /// One for each line, in its order.
    pub lines: Vec<LineAmounts>,
    /// Value after discounts, before tax.
    pub taxable: Decimal,
    /// Taxes by head.
    pub tax: Tax,
    /// What brings the total to whole rupees, -0.49 to +0.50 (CGST Act s.170).
    pub round_off: Decimal,
    /// What is to be paid or credited, in whole rupees.
    pub total: Decimal,
}

/// Works a document out. Line values and each head of tax of each line are rounded half up to the paisa; CGST and SGST
/// are each computed at half the rate, never by halving an amount; only the total is rounded to the rupee.
pub(super) fn work_out(invoice: &Invoice) -> Amounts {
    let place = place_of_supply(invoice).to_owned();
    let heads = heads(invoice, &place);
    let lines: Vec<_> = invoice.lines.iter().map(|line| line_amounts(line, heads)).collect();
    let taxable: Decimal = lines.iter().map(|line| line.taxable).sum();
    let tax = lines.iter().fold(Tax::default(), |sum, line| sum.plus(line.tax));
    // Under reverse charge the recipient pays the tax to the Government, not to the supplier.
    let exact = if invoice.reverse_charge { taxable } else { taxable + tax.sum() };
    let total = exact.round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero);
    Amounts { place_of_supply: place, heads, lines, taxable, tax, round_off: total - exact, total }
}

fn line_amounts(line: &Line, heads: Heads) -> LineAmounts {
    let discount = line.discount.unwrap_or_default().0;
    let taxable = to_paisa(line.quantity.0 * line.unit_price.0 - discount);
    let share = |percent: Decimal| to_paisa(taxable * percent / Decimal::ONE_HUNDRED);
    let rate = line.gst_rate.unwrap_or_default().0;
    let half = rate / Decimal::TWO;
    let mut tax = Tax::default();
    match heads {
        Heads::CentralAndState => (tax.cgst, tax.sgst) = (share(half), share(half)),
        Heads::CentralAndTerritory => (tax.cgst, tax.utgst) = (share(half), share(half)),
        Heads::Integrated => tax.igst = share(rate),
        Heads::None => {}
    }
    if heads != Heads::None {
        tax.cess = share(line.cess_rate.unwrap_or_default().0);
    }
    LineAmounts { taxable, tax }
}

fn to_paisa(amount: Decimal) -> Decimal {
    amount.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
}

/// State code of the place of supply.
///
/// * Goods to an unregistered buyer: the State recorded in the document, delivery address first, else the supplier's;
///   it overrides where the goods move (IGST Act s.10(1)(ca), Circular 209/3/2024).
/// * Everything else: what the document says, since it may be a bill-to ship-to sale, a sale over the counter or a
///   service with a rule of its own (s.10(1)(a) to (c), s.12, s.13).
/// * When it says nothing: goods where they are delivered (s.10(1)(a)); services where the recipient is (s.12(2)); else
///   at the supplier's.
pub(super) fn place_of_supply(invoice: &Invoice) -> &str {
    let recorded = recorded_state(invoice);
    let given = invoice.place_of_supply.as_deref();
    let supplier = invoice.supplier.address.state.as_str();
    if law_fixes_place(invoice) { recorded.unwrap_or(supplier) } else { given.or(recorded).unwrap_or(supplier) }
}

/// Whether the recorded address alone decides: goods within India to an unregistered buyer.
pub(super) fn law_fixes_place(invoice: &Invoice) -> bool {
    let registered = invoice.buyer.as_ref().is_some_and(Buyer::is_registered);
    !registered && has_goods(invoice) && invoice.zero_rated.is_none()
}

/// Whether any line is goods; a line without HSN is.
pub(super) fn has_goods(invoice: &Invoice) -> bool {
    invoice.lines.iter().any(|line| !line.hsn.as_deref().is_some_and(numbers::is_service))
}

/// The State that the document records for the recipient.
pub(super) fn recorded_state(invoice: &Invoice) -> Option<&str> {
    let buyer = invoice.buyer.as_ref();
    let delivery = invoice.delivery_address.as_ref().filter(|_| has_goods(invoice));
    delivery
        .or_else(|| buyer.and_then(|buyer| buyer.address.as_ref()))
        .map(|address| address.state.as_str())
        .or_else(|| buyer.and_then(|buyer| buyer.gstin.as_deref().or(buyer.uin.as_deref())).and_then(|id| id.get(..2)))
}

/// The heads of tax for a supply in this place.
fn heads(invoice: &Invoice, place: &str) -> Heads {
    let supplier = &invoice.supplier;
    if invoice.kind == Kind::BillOfSupply {
        Heads::None
    } else if supplier.sez || invoice.zero_rated.is_some() || place != supplier.address.state {
        Heads::Integrated
    } else if find_state(place).is_some_and(|state| state.utgst) {
        Heads::CentralAndTerritory
    } else {
        Heads::CentralAndState
    }
}

impl ZeroRated {
    /// Whether no tax is charged, under bond or letter of undertaking.
    pub const fn is_without_tax(self) -> bool {
        matches!(self, Self::ExportUnderLut | Self::SezUnderLut)
    }

    /// Whether the supply leaves India.
    pub const fn is_export(self) -> bool {
        matches!(self, Self::ExportWithTax | Self::ExportUnderLut)
    }

    /// The endorsement that r.46 asks for.
    pub const fn endorsement(self) -> &'static str {
        match self {
            Self::ExportWithTax => "Supply meant for export on payment of integrated tax",
            Self::ExportUnderLut => {
                "Supply meant for export under bond or letter of undertaking without payment of integrated tax"
            }
            Self::SezWithTax => {
                "Supply to SEZ unit or SEZ developer for authorised operations on payment of integrated tax"
            }
            Self::SezUnderLut => {
                "Supply to SEZ unit or SEZ developer for authorised operations under bond or letter of undertaking \
                 without payment of integrated tax"
            }
        }
    }
}
