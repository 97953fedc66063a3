def run(command, folder):
    print(command, folder)
