//! What a check found, row by row: the shape of `-o json`, and what the exit code follows from.
//!
//! What always holds: a row that warns or failed has a hint, since there is no other way to make one; a row whose precondition failed is
//! neither ok nor failed.

use serde::Serialize;

/// What a row is about, in the order in which rows are shown: each rests on those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Category {
    Configuration,
    Dns,
    Tcp,
    Tls,
    Sasl,
    Versions,
    Cluster,
    Topics,
    Acls,
    Group,
    Clock,
    Limits,
    Kubernetes,
}

impl Category {
    /// As a heading.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Dns => "DNS",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Sasl => "SASL",
            Self::Versions => "API versions",
            Self::Cluster => "cluster",
            Self::Topics => "topics",
            Self::Acls => "ACLs",
            Self::Group => "group",
            Self::Clock => "clock",
            Self::Limits => "limits",
            Self::Kubernetes => "Kubernetes",
        }
    }
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    Warning,
    Failed,
    /// Not looked at.
    Skipped,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) category: Category,
    /// What: a broker, a file's key, a topic, …
    pub(super) check: String,
    pub(super) status: Status,
    /// What was found.
    pub(super) detail: String,
    /// What to do about it; null unless it warns or failed.
    pub(super) hint: Option<String>,
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Row>);

impl Report {
    pub(super) fn ok(&mut self, category: Category, check: impl ToString, detail: impl ToString) {
        self.add(category, &check, Status::Ok, &detail, None);
    }

    pub(super) fn warning(
        &mut self,
        category: Category,
        check: impl ToString,
        detail: impl ToString,
        hint: impl ToString,
    ) {
        self.add(
            category,
            &check,
            Status::Warning,
            &detail,
            Some(hint.to_string()),
        );
    }

    pub(super) fn failed(
        &mut self,
        category: Category,
        check: impl ToString,
        detail: impl ToString,
        hint: impl ToString,
    ) {
        self.add(
            category,
            &check,
            Status::Failed,
            &detail,
            Some(hint.to_string()),
        );
    }

    /// `why` completes "not looked at: ".
    pub(super) fn skipped(&mut self, category: Category, check: impl ToString, why: impl ToString) {
        let detail = format!("not looked at: {}", why.to_string());
        self.add(category, &check, Status::Skipped, &detail, None);
    }

    fn add(
        &mut self,
        category: Category,
        check: &impl ToString,
        status: Status,
        detail: &impl ToString,
        hint: Option<String>,
    ) {
        // A name in a certificate or a broker's words may hold anything; a row stays a row.
        let line = |text: String| text.replace(char::is_control, " ");
        self.0.push(Row {
            category,
            check: line(check.to_string()),
            status,
            detail: line(detail.to_string()),
            hint: hint.map(line),
        });
    }

    /// The rows in the order of their categories.
    pub(super) fn rows(mut self) -> Vec<Row> {
        self.0.sort_by_key(|row| row.category);
        self.0
    }
}

/// How many rows have a status.
pub(super) fn count(rows: &[Row], status: Status) -> usize {
    rows.iter().filter(|row| row.status == status).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_row_in_json_is_what_is_documented() {
        let mut report = Report::default();
        report.failed(
            Category::Tcp,
            "broker:9092",
            "refused\nby it",
            "Start the broker.",
        );
        report.ok(Category::Configuration, "settings", "valid");
        assert_eq!(
            serde_json::to_string(&report.rows()).unwrap(),
            concat!(
                r#"[{"category":"configuration","check":"settings","status":"ok","detail":"valid","hint":null},"#,
                r#"{"category":"tcp","check":"broker:9092","status":"failed","detail":"refused by it","hint":"Start the broker."}]"#
            )
        );
    }
}
