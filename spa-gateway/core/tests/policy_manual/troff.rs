//! Markdown as our manual uses it, into the `man` macros: headings, paragraphs, lists, tables of two columns, blocks.

/// Writes a page. What it does not know of Markdown comes out as text, which shows.
pub fn from_markdown(page: &str) -> String {
    let mut out = String::from(".\\\" Made from spa-policy.5.md; edit that.\n");
    let mut lines = page.lines().peekable();
    let mut paragraph: Vec<&str> = Vec::new();
    while let Some(line) = lines.next() {
        let starts = ["# ", "## ", "### ", "- ", "| ", "|-", "```"];
        let is_text = !line.is_empty()
            && !starts.iter().any(|start| line.starts_with(start))
            && numbered(line).is_none();
        if is_text {
            paragraph.push(line);
            continue;
        }
        end(&mut paragraph, &mut out);
        if let Some(title) = line.strip_prefix("# ") {
            let (name, section) = title
                .trim_end_matches(')')
                .split_once('(')
                .expect("name(section)");
            out += &format!(".TH {} {section}\n", name.to_uppercase());
        } else if let Some(heading) = line.strip_prefix("## ") {
            out += &format!(".SH {heading}\n");
        } else if let Some(heading) = line.strip_prefix("### ") {
            out += &format!(".SS {}\n", plain(heading));
        } else if let Some(item) = line.strip_prefix("- ") {
            out += &format!(".IP \\(bu 2\n{}\n", inline(item));
        } else if let Some((number, item)) = numbered(line) {
            out += &format!(".IP {number}. 4\n{}\n", inline(item));
        } else if line.starts_with("```") {
            out += ".PP\n.RS 4\n.nf\n";
            for line in lines.by_ref().take_while(|line| *line != "```") {
                out += &plain(line);
                out.push('\n');
            }
            out += ".fi\n.RE\n";
        } else if let Some(row) = line.strip_prefix("| ") {
            // The row that a ruler follows is the head.
            if lines.peek().is_none_or(|next| !next.starts_with("|-")) {
                let (key, meaning) = row
                    .trim_end_matches(" |")
                    .split_once(" | ")
                    .expect("two columns");
                out += &format!(".TP\n{}\n{}\n", inline(key), inline(meaning));
            }
        }
    }
    end(&mut paragraph, &mut out);
    out
}

fn end(paragraph: &mut Vec<&str>, out: &mut String) {
    if paragraph.is_empty() {
        return;
    }
    // Below a heading `.PP` is not needed, and does no harm.
    if !out
        .lines()
        .last()
        .is_some_and(|line| line.starts_with(".S"))
    {
        *out += ".PP\n";
    }
    *out += &inline(&paragraph.join(" "));
    out.push('\n');
    paragraph.clear();
}

fn numbered(line: &str) -> Option<(&str, &str)> {
    let (number, item) = line.split_once(". ")?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        .then_some((number, item))
}

/// Code is bold.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            out += &format!("\\fB{}\\fR", plain(part));
        } else {
            out += &plain(part);
        }
    }
    guarded(&out)
}

/// A hyphen is a minus, so that it can be copied, and a backslash is one.
fn plain(text: &str) -> String {
    guarded(&text.replace('\\', "\\e").replace('-', "\\-"))
}

/// A line that begins with a dot or a quote is no macro.
fn guarded(text: &str) -> String {
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text.to_owned()
    }
}
