//! The list of extracted files that a caller may ask for, as CSV or JSON.
//!
//! Values are written as they are: a report is read by programs, and a path changed to please a
//! spreadsheet would be a wrong path. Must not know where the report is stored.

use serde::Serialize;

use super::error::ArchiveError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    Csv,
    Json,
}

impl ReportFormat {
    pub fn parse(value: &str) -> Result<Self, ArchiveError> {
        match value {
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            _ => Err(ArchiveError::UnknownReportFormat {
                value: value.chars().take(40).collect(),
                allowed: "csv, json",
            }),
        }
    }

    pub fn mime_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Json => "application/json",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportRow {
    pub path: String,
    pub size: u64,
    pub mime_type: String,
    pub hash: String,
    pub file_id: String,
}

pub fn render(format: ReportFormat, rows: &[ReportRow]) -> Vec<u8> {
    match format {
        ReportFormat::Csv => csv(rows).into_bytes(),
        ReportFormat::Json => serde_json::json!(rows).to_string().into_bytes(),
    }
}

fn csv(rows: &[ReportRow]) -> String {
    let mut text = String::from("path,size,mimeType,hash,fileId\r\n");
    for row in rows {
        let size = row.size.to_string();
        let fields = [&row.path, &size, &row.mime_type, &row.hash, &row.file_id];
        for (index, field) in fields.into_iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            push_field(&mut text, field);
        }
        text.push_str("\r\n");
    }
    text
}

fn push_field(text: &mut String, field: &str) {
    let padded = field.starts_with(' ') || field.ends_with(' ');
    if padded || field.contains([',', '"', '\r', '\n']) {
        text.push('"');
        text.push_str(&field.replace('"', "\"\""));
        text.push('"');
    } else {
        text.push_str(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str) -> ReportRow {
        ReportRow {
            path: path.into(),
            size: 3,
            mime_type: "text/plain".into(),
            hash: "abc".into(),
            file_id: "id-1".into(),
        }
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let rows = [row("/a.txt"), row("/b, \"c\".txt"), row("/é ")];
        let text = String::from_utf8(render(ReportFormat::Csv, &rows)).unwrap();
        assert_eq!(
            text,
            "path,size,mimeType,hash,fileId\r\n\
             /a.txt,3,text/plain,abc,id-1\r\n\
             \"/b, \"\"c\"\".txt\",3,text/plain,abc,id-1\r\n\
             \"/é \",3,text/plain,abc,id-1\r\n"
        );
    }

    #[test]
    fn json_is_an_array_of_objects() {
        let bytes = render(ReportFormat::Json, &[row("/a\"b")]);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value[0]["path"], "/a\"b");
        assert_eq!(value[0]["mimeType"], "text/plain");
        assert_eq!(value[0]["size"], 3);
    }

    #[test]
    fn no_rows_are_a_report_too() {
        assert_eq!(render(ReportFormat::Csv, &[]), b"path,size,mimeType,hash,fileId\r\n");
        assert_eq!(render(ReportFormat::Json, &[]), b"[]");
    }

    #[test]
    fn formats_are_parsed() {
        assert_eq!(ReportFormat::parse("csv").unwrap(), ReportFormat::Csv);
        let error = ReportFormat::parse("xml").unwrap_err();
        assert_eq!(error.to_string(), "\"xml\" is not a report format; allowed are csv, json");
    }
}
