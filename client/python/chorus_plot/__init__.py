"""Pictures of what a fused request may attend to, and of what it did attend to.

`layout`, `mask_runs` and `sampling` are the segment mask of core/segment once more, in numpy;
`explain_data`, `attribution_data` and `attention_statistics` read and sum up what a server says;
the modules named `*_figure(s)` draw. The command is `chorus-plot`.
"""
