//! Where in the user's code an operator was called: from the metadata of a node.

/// Path and class of the innermost module of `stack`, an `nn_module_stack`:
/// `key,path,class;key,path,class`.
pub(super) fn innermost_module(stack: &str) -> (String, String) {
    let last = stack.rsplit(';').next().unwrap_or_default();
    match fields(last)[..] {
        [_, path, class] => (plain_path(path), class.to_owned()),
        _ => (String::new(), String::new()),
    }
}

/// The parts between the commas that are in no brackets.
fn fields(entry: &str) -> Vec<&str> {
    let mut depth = 0usize;
    let separates = |character: char| {
        match character {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    };
    entry.split(separates).collect()
}

/// `layer1.0.conv1` of `L['self'].layer1[0].conv1`, as exports by dynamo may call it; paths that
/// are plain already stay as they are, less the number of a repeated call (`conv1@1`).
fn plain_path(path: &str) -> String {
    let path = path.strip_prefix("L['self']").or(path.strip_prefix("L__self__")).unwrap_or(path);
    let path = match path.rsplit_once('@') {
        Some((before, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => before,
        _ => path,
    };
    let dotted = path.replace("['", ".").replace("']", "").replace('[', ".").replace(']', "");
    dotted.trim_start_matches('.').to_owned()
}

/// File and line, and the line's text, of the innermost call in `trace` that is not in PyTorch's
/// own code; if all are, of the innermost.
pub(super) fn user_line(trace: &str) -> Option<(String, String)> {
    let lines: Vec<&str> = trace.lines().map(str::trim).collect();
    let frames = lines.iter().enumerate().filter_map(|(index, line)| {
        let (file, rest) = line.strip_prefix("File \"")?.split_once("\", line ")?;
        let number = rest.split(',').next()?;
        let text = lines.get(index + 1).filter(|text| !text.starts_with("File \""));
        Some((file, number, text.copied().unwrap_or_default()))
    });
    let frames: Vec<(&str, &str, &str)> = frames.collect();
    let users = frames.iter().rev().find(|(file, ..)| !is_torchs(file));
    let (file, number, text) = users.or(frames.last())?;
    Some((format!("{}:{number}", shortened(file)), (*text).to_owned()))
}

/// Whether a file is a part of PyTorch, installed or in its repository.
fn is_torchs(file: &str) -> bool {
    let file = file.replace('\\', "/");
    ["-packages/torch/", "/torch/nn/modules/", "/torch/nn/functional.py", "/torch/_", "<string>"]
        .iter()
        .any(|part| file.contains(part))
}

/// Less where packages are installed.
fn shortened(file: &str) -> &str {
    let end = ["-packages/", "-packages\\"]
        .iter()
        .find_map(|mark| file.rfind(mark).map(|at| at + mark.len()));
    &file[end.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_told_from_stacks_of_every_form() {
        for (stack, path, class) in [
            ("L__self__,,__main__.Net", "", "__main__.Net"),
            ("L__self__,,Net;L__self__layer1.0,layer1.0,models.Block", "layer1.0", "models.Block"),
            ("L__self__,,Net;L__self__conv@1,conv,torch.nn.Conv2d", "conv", "torch.nn.Conv2d"),
            (
                "140205910173008,l.0,torch.nn.modules.container.Sequential",
                "l.0",
                "torch.nn.modules.container.Sequential",
            ),
            ("k,L['self'].stages[0].blocks['x'].conv,C", "stages.0.blocks.x.conv", "C"),
            ("getattr(a, 'b'),L__self__.conv,C[x, y]", "conv", "C[x, y]"),
            ("a,conv@2,C", "conv", "C"),
            ("nonsense", "", ""),
            ("", "", ""),
        ] {
            assert_eq!(innermost_module(stack), (path.to_owned(), class.to_owned()), "{stack}");
        }
    }

    #[test]
    fn the_users_line_is_the_innermost_outside_torch() {
        let eager = "File \"/home/me/net.py\", line 20, in forward\n    x = self.block(x)\n  \
            File \"/home/me/block.py\", line 7, in forward\n    return self.conv(x)\n  \
            File \"/env/lib/python3.11/site-packages/torch/nn/modules/conv.py\", line 565, in \
            forward\n    return self._conv_forward(input, self.weight, self.bias)";
        let (place, text) = user_line(eager).unwrap();
        assert_eq!((place.as_str(), text.as_str()), ("/home/me/block.py:7", "return self.conv(x)"));

        let dynamo = "  File \"/env/site-packages/torch/_dynamo/functional_export.py\", line 232, \
            in forward\n    res = self._export_root(*args, **kwargs)\n          ^^^^^^^^\n  \
            File \"/env/site-packages/timm/layers/blur.py\", line 8, in forward\n    \
            return pad(x)\n           ^^^^^^\n";
        let (place, text) = user_line(dynamo).unwrap();
        assert_eq!((place.as_str(), text.as_str()), ("timm/layers/blur.py:8", "return pad(x)"));

        let inside = "File \"/e/site-packages/torch/nn/functional.py\", line 3, in relu";
        assert_eq!(user_line(inside), Some(("torch/nn/functional.py:3".into(), String::new())));
        assert_eq!(user_line("no frame"), None);
    }
}
