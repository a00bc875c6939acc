//! Who may do what: one table of roles and scopes. What does not stand in it is refused.
//!
//! A scope is a verb on a resource (`invoice:read`); a token holds scopes, a person holds roles, and both are asked the
//! same question. Roles hold inside one business, those of the platform in the whole installation. Reading never means
//! plaintext: what decrypts is a verb of its own (`open`), and neither the auditor nor support has it.

use std::{fmt, str::FromStr};

use serde::Serialize;

use super::{BusinessId, Error, Scope};

/// What somebody is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The business is hers.
    Owner,
    /// Runs the shop for the owner.
    Manager,
    /// Bills and answers at the counter.
    CounterStaff,
    /// Looks on.
    ReadOnly,
    /// Answers Data Principals and keeps the consents (DPDP Act 2023 s.8, s.10).
    PrivacyOfficer,
    /// Leads when data got out (DPDP Act 2023 s.8(6)).
    IncidentLead,
    /// The second person who says yes.
    Approver,
    /// Keeps the installation running; sees no personal data.
    Operator,
    /// Reads everything that proves, never plaintext.
    Auditor,
    /// Helps a business that let her in; sees masked values.
    Support,
}

impl Role {
    /// All of them, those of a business first.
    pub const ALL: [Self; 10] = [
        Self::Owner,
        Self::Manager,
        Self::CounterStaff,
        Self::ReadOnly,
        Self::PrivacyOfficer,
        Self::IncidentLead,
        Self::Approver,
        Self::Operator,
        Self::Auditor,
        Self::Support,
    ];

    /// As it stands in rows and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Manager => "manager",
            Self::CounterStaff => "counter_staff",
            Self::ReadOnly => "read_only",
            Self::PrivacyOfficer => "privacy_officer",
            Self::IncidentLead => "incident_lead",
            Self::Approver => "approver",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Support => "support",
        }
    }

    /// Whether staff of `business` (`None`: of the platform) may have it.
    pub const fn fits(self, business: Option<BusinessId>) -> bool {
        match self {
            Self::Owner | Self::Manager | Self::CounterStaff | Self::ReadOnly => business.is_some(),
            Self::Operator | Self::Support => business.is_none(),
            Self::PrivacyOfficer | Self::IncidentLead | Self::Approver | Self::Auditor => true,
        }
    }

    /// Whether it may do this.
    pub fn may(self, scope: Scope) -> bool {
        TABLE.iter().any(|(listed, roles)| *listed == scope && roles.contains(&self))
    }

    /// All it may do, in the order of [`Scope::ALL`].
    pub fn scopes(self) -> Vec<Scope> {
        Scope::ALL.iter().copied().filter(|scope| self.may(*scope)).collect()
    }
}

/// Everything that somebody with these roles may do.
pub fn scopes_of(roles: &[Role]) -> Vec<Scope> {
    Scope::ALL.iter().copied().filter(|scope| roles.iter().any(|role| role.may(*scope))).collect()
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| Error::NoSuchRole(text.to_owned()))
    }
}

use Role::{
    Approver, Auditor, CounterStaff, IncidentLead, Manager, Operator, Owner, PrivacyOfficer, ReadOnly, Support,
};

/// Who may do what. Every scope has exactly one row.
const TABLE: &[(Scope, &[Role])] = &[
    // Work under way and what runs by the clock.
    (
        Scope::QueueRead,
        &[Owner, Manager, CounterStaff, ReadOnly, PrivacyOfficer, IncidentLead, Operator, Auditor, Support],
    ),
    (Scope::QueueWrite, &[Owner, Manager, CounterStaff, Operator]),
    (Scope::ScheduleRead, &[Owner, Manager, ReadOnly, Operator, Auditor, Support]),
    (Scope::ScheduleWrite, &[Owner, Manager, Operator]),
    // Documents and messages.
    (Scope::InvoiceRead, &[Owner, Manager, CounterStaff, ReadOnly, Auditor, Support]),
    (Scope::InvoiceOpen, &[Owner, Manager, CounterStaff, ReadOnly]),
    (Scope::MessagingRead, &[Owner, Manager, CounterStaff, ReadOnly, PrivacyOfficer, IncidentLead, Auditor, Support]),
    (Scope::MessagingSend, &[Owner, Manager, CounterStaff]),
    (
        Scope::SendersRead,
        &[Owner, Manager, CounterStaff, ReadOnly, PrivacyOfficer, IncidentLead, Operator, Auditor, Support],
    ),
    (Scope::SendersWrite, &[Owner, Manager, Operator]),
    (Scope::WebhooksRead, &[Owner, Manager, ReadOnly, Operator, Auditor, Support]),
    (Scope::WebhooksWrite, &[Owner, Operator]),
    (Scope::ConsentRead, &[Owner, Manager, PrivacyOfficer]),
    (Scope::ConsentWrite, &[Owner, Manager, CounterStaff, PrivacyOfficer]),
    (Scope::ConsentCheck, &[Owner, Manager, PrivacyOfficer]),
    (Scope::CampaignWrite, &[Owner, Manager]),
    // Whoever sees that something wrong goes out ends it, without leave to begin anything.
    (Scope::CampaignStop, &[Owner, Manager, PrivacyOfficer, IncidentLead, Operator]),
    (Scope::OtpUse, &[Owner, Manager]),
    // The business, its people and what speaks for it.
    (Scope::BusinessRead, &[Owner, Manager, ReadOnly, PrivacyOfficer, Operator, Auditor, Support]),
    (Scope::BusinessWrite, &[Owner, Operator]),
    (Scope::StaffRead, &[Owner, Manager, PrivacyOfficer, Operator, Auditor]),
    (Scope::StaffWrite, &[Owner, Manager, Operator]),
    (Scope::TokenRead, &[Owner, Manager, Operator, Auditor]),
    (Scope::TokenWrite, &[Owner, Operator]),
    (Scope::SupportGrant, &[Owner]),
    // Decisions that take a second person.
    (Scope::ApprovalRead, &[Owner, Manager, PrivacyOfficer, IncidentLead, Approver, Operator, Auditor]),
    (Scope::ApprovalInvite, &[Owner]),
    // Sealed values.
    (Scope::VaultSeal, &[Owner, Manager, CounterStaff, PrivacyOfficer]),
    (Scope::VaultFind, &[Owner, Manager, CounterStaff, PrivacyOfficer]),
    (Scope::VaultOpen, &[Owner, PrivacyOfficer]),
    (Scope::KeysRead, &[Owner, PrivacyOfficer, Operator, Auditor]),
    (Scope::KeysWrite, &[Operator]),
    (Scope::KeysApprove, &[Owner, Approver]),
    // Proof.
    (Scope::EvidenceRead, &[Owner, PrivacyOfficer, IncidentLead, Operator, Auditor]),
    (Scope::EvidenceExport, &[Owner, PrivacyOfficer, Auditor]),
    // The duties that need a second person.
    (Scope::RightsRead, &[Owner, PrivacyOfficer, Approver, Auditor]),
    (Scope::RightsWrite, &[Owner, PrivacyOfficer]),
    (Scope::RightsApprove, &[Owner, Approver]),
    (Scope::RetentionApprove, &[Owner, Approver]),
    (Scope::BreachRead, &[Owner, PrivacyOfficer, IncidentLead, Approver, Auditor]),
    (Scope::BreachWrite, &[Owner, IncidentLead]),
    (Scope::BreachApprove, &[Owner, Approver]),
    (Scope::BreachSend, &[Owner, IncidentLead]),
];

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn every_cell_of_the_table_is_under_review() {
        let mut grid = format!("{:<16}", "");
        for role in Role::ALL {
            let _ = write!(grid, " {role}");
        }
        for scope in Scope::ALL {
            let _ = write!(grid, "\n{:<16}", scope.as_str());
            for role in Role::ALL {
                let width = role.as_str().len();
                let _ = write!(grid, " {:<width$}", if role.may(*scope) { "x" } else { "." });
            }
        }
        let grid: String = grid.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        insta::assert_snapshot!("roles", grid);
    }

    #[test]
    fn every_scope_has_one_row() {
        for scope in Scope::ALL {
            assert_eq!(TABLE.iter().filter(|(listed, _)| listed == scope).count(), 1, "{scope}");
        }
        assert_eq!(TABLE.len(), Scope::ALL.len());
    }

    #[test]
    fn atk_061_who_looks_on_changes_nothing_and_opens_nothing() {
        for role in [Role::Auditor, Role::Support, Role::ReadOnly] {
            for scope in role.scopes() {
                let verb = scope.verb();
                let printed = role == Role::ReadOnly && scope == Scope::InvoiceOpen;
                let exported = role == Role::Auditor && scope == Scope::EvidenceExport;
                assert!(verb == "read" || printed || exported, "{role} may {scope}");
            }
        }
        assert!(!Role::Auditor.may(Scope::VaultOpen) && !Role::Auditor.may(Scope::InvoiceOpen));
        assert!(!Role::Support.may(Scope::VaultOpen) && !Role::Support.may(Scope::EvidenceExport));
        assert!(!Role::Operator.may(Scope::VaultOpen), "who runs the machine has no business with the data");
    }

    #[test]
    fn whoever_approves_does_not_edit_or_send() {
        for scope in Role::Approver.scopes() {
            assert!(matches!(scope.verb(), "read" | "approve"), "{scope}");
        }
        for scope in Role::IncidentLead.scopes() {
            assert_ne!(scope.verb(), "approve", "whoever sends does not approve: {scope}");
        }
    }

    #[test]
    fn an_owner_can_give_every_role_of_a_business_and_none_of_the_platform() {
        let business = Some(BusinessId(uuid::Uuid::nil()));
        let own = Role::Owner.scopes();
        for role in Role::ALL {
            if role.fits(business) {
                assert!(role.scopes().iter().all(|scope| own.contains(scope)), "{role}");
            } else {
                assert!(matches!(role, Role::Operator | Role::Support), "{role}");
            }
        }
    }

    #[test]
    fn names_read_back() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().expect("known"), role);
        }
        assert!("root".parse::<Role>().is_err());
    }
}
