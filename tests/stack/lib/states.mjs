// The broker's pages name their state in `<body data-ksb-state="…">`. In these nothing was signed in.
export const refusals = ['refused', 'unproven', 'expired', 'wrong-user', 'declined', 'failed']
