"""How the bundled model is shown a conversation: as it was trained to read one, and with the tools that it may call.

The template in its file knows of no tools, so that the engine would leave them out and say nothing. Without tools this
one writes what that one writes, letter for letter.
Source: the chat_template in SmolLM2-135M-Instruct's file (ChatML, with a system turn where a conversation has none);
the tags are those by which the engine finds calls in an answer.
"""

from __future__ import annotations

BUNDLED_TEMPLATE = """\
{%- set system = 'You are a helpful AI assistant named SmolLM, trained by Hugging Face' -%}
{%- set turns = messages -%}
{%- if messages[0]['role'] == 'system' -%}
  {%- set system = messages[0]['content'] -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{{- '<|im_start|>system\\n' + system -}}
{%- if tools -%}
  {{- '\\n\\nThese functions can be called:\\n<tools>\\n' -}}
  {%- for tool in tools -%}
    {{- tool['function'] | tojson + '\\n' -}}
  {%- endfor -%}
  {{- '</tools>\\nA call is written so:\\n<tool_call>\\n' -}}
  {{- '{"name": "the function", "arguments": {"its parameter": "a value"}}\\n</tool_call>' -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- for turn in turns -%}
  {%- if turn['role'] == 'tool' -%}
    {{- '<|im_start|>user\\n<tool_response>\\n' + turn['content'] + '\\n</tool_response><|im_end|>\\n' -}}
  {%- else -%}
    {{- '<|im_start|>' + turn['role'] + '\\n' -}}
    {%- if turn['content'] -%}
      {{- turn['content'] -}}
    {%- endif -%}
    {%- for call in turn['tool_calls'] or [] -%}
      {{- '<tool_call>\\n{"name": "' + call['function']['name'] + '", "arguments": ' -}}
      {{- call['function']['arguments'] | tojson + '}\\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
