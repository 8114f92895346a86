cpdef dict parse_body(bytes body)
cpdef check_chat(dict fields, Py_ssize_t max_messages, Py_ssize_t max_content_chars, tuple lengths=*)
cpdef check_prompt(dict fields)
cpdef check_numbers(dict fields)
